"""Constant-velocity Kalman filter with measured covariances, and its gate.

Time is an argument, ns; there is no clock here.
"""

from __future__ import annotations

import numpy as np
from scipy.special import chdtri


class ConstantVelocityFilter:
    """Position in D dimensions and its rate: state (2D,), in the position's unit and that per s.

    The velocity is a random walk with spectral density `process_noise` (unit^2/s^3), so that the
    predicted covariance does not depend on the number of prediction steps. Defaults are a walking
    person's, in metres.
    """

    def __init__(self, position: np.ndarray, cov: np.ndarray, stamp: int, speed: float = 1.0,
                 process_noise: float = 0.1):
        """Start at a measured position.

        Args:
            position (D,), cov (D, D): measured, and its covariance.
            stamp: ns.
            speed: prior standard deviation of the velocity, unit/s.
            process_noise: spectral density, unit^2/s^3.
        """
        size = len(position)
        self.state = np.concatenate([position, np.zeros(size)])
        self.cov: np.ndarray = np.zeros((2 * size, 2 * size))
        self.cov[:size, :size] = cov
        self.cov[size:, size:] = speed**2 * np.eye(size)
        self.stamp, self.process_noise = stamp, process_noise

    @property
    def size(self) -> int:
        """D, the number of dimensions."""
        return len(self.state) // 2

    @property
    def position(self) -> np.ndarray:
        """(D,) position."""
        return self.state[:self.size]

    @property
    def velocity(self) -> np.ndarray:
        """(D,) velocity, per second."""
        return self.state[self.size:]

    @property
    def velocity_cov(self) -> np.ndarray:
        """(D, D) covariance of the velocity."""
        return self.cov[self.size:, self.size:]

    def predicted(self, stamp: int,
                  process_noise: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Predict the state for a stamp that is not before the last update.

        Args:
            stamp: ns.
            process_noise: in place of the filter's own, e.g. for a person out of sight.
        Returns:
            state (2D,) and covariance (2D, 2D).
        """
        density = self.process_noise if process_noise is None else process_noise
        dt = seconds(stamp - self.stamp)
        step = np.kron([[1, dt], [0, 1]], np.eye(self.size))
        noise = density * np.array([[dt**3 / 3, dt**2 / 2], [dt**2 / 2, dt]])
        return step @ self.state, step @ self.cov @ step.T + np.kron(noise, np.eye(self.size))

    def squared_mahalanobis(self, positions: np.ndarray, covs: np.ndarray,
                            stamp: int) -> np.ndarray:
        """Return (N,) squared Mahalanobis distances of N measured positions at a stamp (ns).

        Args:
            positions (N, D), covs (N, D, D): measured, and their covariances.
        """
        state, cov = self.predicted(stamp)
        return squared_mahalanobis(positions - state[:self.size],
                                   cov[:self.size, :self.size] + covs)

    def update(self, position: np.ndarray, cov: np.ndarray, stamp: int) -> None:
        """Predict to a stamp (ns) and take in a position (D,) measured with covariance (D, D)."""
        size = self.size
        self.state, self.cov = self.predicted(stamp)
        gain = self.cov[:, :size] @ np.linalg.inv(self.cov[:size, :size] + cov)
        self.state = self.state + gain @ (position - self.state[:size])
        self.cov = self.cov - gain @ self.cov[:size]
        self.cov = (self.cov + self.cov.T) / 2
        self.stamp = stamp

    def shift(self, step: np.ndarray) -> None:
        """Move the position by a step (D,) that is no motion of its own."""
        self.state[:self.size] += step


def squared_mahalanobis(error: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Return (...) squared Mahalanobis distances of errors (..., D), covariances (..., D, D)."""
    return (error * np.linalg.solve(cov, error[..., None])[..., 0]).sum(-1)


def gate(dimensions: int, share: float) -> float:
    """Return the squared Mahalanobis distance within which a share, 0..1, of measurements lies."""
    return float(chdtri(dimensions, 1 - share))  # scipy.stats takes half a second to import


def seconds(nanoseconds: int) -> float:
    """Convert a difference of stamps, ns, to s."""
    return nanoseconds * 1e-9
