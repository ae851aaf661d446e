"""Kalman filter of positions and velocities with measured covariances, and its gate.

Time is an argument, ns; there is no clock here.
"""

from __future__ import annotations

from math import exp, inf

import numpy as np
from scipy.special import chdtri

_SHORT = 1e-4  # of the time constant: an interval in which the decay does not matter


class VelocityFilter:
    """Positions (..., D) and their velocities, in the positions' unit and that per s.

    The velocity is a random walk that decays towards 0 (an Ornstein-Uhlenbeck process): people
    stop and turn. Without decay it is the constant-velocity model. The predicted covariance does
    not depend on the number of prediction steps. Points of leading dimensions are independent.
    """

    def __init__(self, position: np.ndarray, cov: np.ndarray, stamp: int,
                 speed: float | np.ndarray, process_noise: float | None = None,
                 decay_s: float = inf):
        """Start at measured positions.

        Args:
            position (..., D), cov (..., D, D): measured, and their covariances.
            stamp: ns.
            speed: prior standard deviation of a velocity, unit/s; (...) for each point.
            process_noise: spectral density of the acceleration, unit^2/s^3. None, only with a
                decay: that with which the speed's distribution stays.
            decay_s: time constant of the velocity.
        """
        variance = np.square(speed)
        self.position = np.asarray(position, float)
        self.velocity = np.zeros_like(self.position)
        self.cov = np.array(cov, float)
        self.cross_cov = np.zeros_like(self.cov)
        self.velocity_cov = self.cross_cov + _isotropic(variance, self.cov)
        self.process_noise = 2 * variance / decay_s if process_noise is None else process_noise
        self.stamp, self.decay_s = stamp, decay_s

    def predicted(self, stamp: int, process_noise: float | None = None) -> tuple[np.ndarray, ...]:
        """Predict for a stamp that is not before the last update.

        Args:
            stamp: ns.
            process_noise: in place of the filter's own, e.g. for a person out of sight.
        Returns:
            position (..., D), velocity (..., D), and the covariances (..., D, D) of the position,
            of position with velocity, and of the velocity.
        """
        density = self.process_noise if process_noise is None else process_noise
        dt = seconds(stamp - self.stamp)
        reach, left = _decay(dt, self.decay_s)
        noise = [_isotropic(density * variance, self.cov)
                 for variance in _noise(dt, reach, left, self.decay_s)]
        both = self.cross_cov + self.cross_cov.swapaxes(-1, -2)
        return (self.position + reach * self.velocity, left * self.velocity,
                self.cov + reach * both + reach**2 * self.velocity_cov + noise[0],
                left * (self.cross_cov + reach * self.velocity_cov) + noise[1],
                left**2 * self.velocity_cov + noise[2])

    def squared_mahalanobis(self, positions: np.ndarray, covs: np.ndarray,
                            stamp: int) -> np.ndarray:
        """Return squared Mahalanobis distances (...) of measured positions at a stamp (ns).

        Args:
            positions (..., D), covs (..., D, D): measured, and their covariances.
        """
        position, _, cov, _, _ = self.predicted(stamp)
        return squared_mahalanobis(positions - position, cov + covs)

    def update(self, position: np.ndarray, cov: np.ndarray, stamp: int,
               gate: float = inf) -> None:
        """Predict to a stamp (ns) and take in positions (..., D), covariances (..., D, D).

        Args:
            gate: squared Mahalanobis distance beyond which a position counts less: its covariance
                grows in proportion.
        """
        before, velocity, prior_cov, cross_cov, velocity_cov = self.predicted(stamp)
        if gate < inf:
            excess = squared_mahalanobis(position - before, prior_cov + cov) / gate
            cov = cov * np.maximum(excess, 1)[..., None, None]
        information = np.linalg.inv(prior_cov + cov)
        gain, velocity_gain = prior_cov @ information, cross_cov.swapaxes(-1, -2) @ information
        innovation = (position - before)[..., None]
        self.position = before + (gain @ innovation)[..., 0]
        self.velocity = velocity + (velocity_gain @ innovation)[..., 0]
        self.cov = _symmetric(prior_cov - gain @ prior_cov)
        self.cross_cov = cross_cov - gain @ cross_cov
        self.velocity_cov = _symmetric(velocity_cov - velocity_gain @ cross_cov)
        self.stamp = stamp

    def shift(self, step: np.ndarray) -> None:
        """Move the positions by a step (..., D) that is no motion of their own."""
        self.position = self.position + step


def _isotropic(variance: float | np.ndarray, like: np.ndarray) -> np.ndarray:
    """Covariances (..., D, D) with the same variance along all axes, as large as those of like."""
    return np.asarray(variance)[..., None, None] * np.eye(like.shape[-1])


def _decay(dt: float, decay_s: float) -> tuple[float, float]:
    """Displacement in dt seconds per velocity, s, and the share of the velocity that is left."""
    if decay_s == inf:
        return dt, 1.0
    left = exp(-dt / decay_s)
    return decay_s * (1 - left), left


def _noise(dt: float, reach: float, left: float, decay_s: float) -> tuple[float, float, float]:
    """Variances after dt seconds of unit spectral density: position, covariance, velocity."""
    if dt < _SHORT * decay_s:  # also without decay; the formulas below would cancel
        return dt**3 / 3, dt**2 / 2, dt
    variance = decay_s / 2 * (1 - left**2)
    return decay_s**2 * (dt - 2 * reach + variance), reach**2 / 2, variance


def _symmetric(cov: np.ndarray) -> np.ndarray:
    return (cov + cov.swapaxes(-1, -2)) / 2


def squared_mahalanobis(error: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Return (...) squared Mahalanobis distances of errors (..., D), covariances (..., D, D)."""
    return (error * np.linalg.solve(cov, error[..., None])[..., 0]).sum(-1)


def gate(dimensions: int, share: float) -> float:
    """Return the squared Mahalanobis distance within which a share, 0..1, of measurements lies."""
    return float(chdtri(dimensions, 1 - share))  # scipy.stats takes half a second to import


def seconds(nanoseconds: int) -> float:
    """Convert a difference of stamps, ns, to s."""
    return nanoseconds * 1e-9
