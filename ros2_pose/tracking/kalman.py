"""Constant-velocity Kalman filter with measured covariances, and the gate that goes with it.

Time is an argument, in nanoseconds; there is no clock here.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import chi2


class ConstantVelocityFilter:
    """A place in D dimensions and its rate: state (2D,), in the place's unit and that per second.

    The velocity wanders as a random walk of density `wander` (unit^2/s^3): what time does to the
    covariance does not depend on the number of steps it is done in. speed: standard deviation of
    the velocity of something just met. Defaults are a walking person's, in metres.
    """

    def __init__(self, position: np.ndarray, cov: np.ndarray, stamp: int, speed: float = 1.0,
                 process_noise: float = 0.1):
        size = len(position)
        self.state = np.concatenate([position, np.zeros(size)])
        self.cov: np.ndarray = np.zeros((2 * size, 2 * size))
        self.cov[:size, :size], self.cov[size:, size:] = cov, speed**2 * np.eye(size)
        self.stamp, self.process_noise = stamp, process_noise

    @property
    def size(self) -> int:
        """D."""
        return len(self.state) // 2

    @property
    def position(self) -> np.ndarray:
        """(D,)."""
        return self.state[:self.size]

    @property
    def velocity(self) -> np.ndarray:
        """(D,) per second."""
        return self.state[self.size:]

    @property
    def velocity_cov(self) -> np.ndarray:
        """(D, D)."""
        return self.cov[self.size:, self.size:]

    def predicted(
        self, stamp: int, process_noise: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """State (2D,) and covariance (2D, 2D) at a time that is not before the last update.

        wander: in place of the filter's own, for what happens out of sight.
        """
        process_noise = self.process_noise if process_noise is None else process_noise
        dt = seconds(stamp - self.stamp)
        step = np.kron([[1, dt], [0, 1]], np.eye(self.size))
        noise = process_noise * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        return step @ self.state, step @ self.cov @ step.T + np.kron(noise, np.eye(self.size))

    def squared_mahalanobis(
        self, positions: np.ndarray, covs: np.ndarray, stamp: int
    ) -> np.ndarray:
        """(N,) squared Mahalanobis distances of measured places (N, D), covariances (N, D, D)."""
        state, cov = self.predicted(stamp)
        off = (positions - state[:self.size])[..., None]
        spread = cov[:self.size, :self.size] + covs
        return (off * np.linalg.solve(spread, off))[..., 0].sum(-1)

    def update(self, position: np.ndarray, cov: np.ndarray, stamp: int) -> None:
        """Predict to `stamp` and take in a measured place (D,) with covariance (D, D)."""
        size = self.size
        self.state, self.cov = self.predicted(stamp)
        gain = self.cov[:, :size] @ np.linalg.inv(self.cov[:size, :size] + cov)
        self.state = self.state + gain @ (position - self.state[:size])
        self.cov = self.cov - gain @ self.cov[:size]
        self.cov = (self.cov + self.cov.T) / 2
        self.stamp = stamp

    def shift(self, step: np.ndarray) -> None:
        """Move the place (D,) by what is no motion of its own."""
        self.state[:self.size] += step


def gate(dimensions: int, share: float) -> float:
    """The squared Mahalanobis distance within which that share of the measurements lies."""
    return float(chi2.ppf(share, dimensions))


def seconds(nanoseconds: int) -> float:
    """Of a difference of stamps."""
    return nanoseconds * 1e-9
