"""What a privacy statement allows a test: true positive rates against false positive rates."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fldp import accounting

if TYPE_CHECKING:
    from fldp.plan import PrivacyPlan

# A plan's curve is bounded by this many lines.
_LINES = 24
# They end at the ε at which δ is this small.
_NEGLIGIBLE = 1e-9


class TradeOff(Protocol):
    """What a privacy statement allows a test, for neighbours in either order."""

    def forward(self, x: float) -> float:
        """F: an upper bound on the true positive rate at false positive rate x.

        Parameters
        ----------
        x : float
            In [0, 1].

        Returns
        -------
        float
            In [0, 1].
        """

    def inverse(self, y: float) -> float:
        """F⁻¹: a lower bound on the false positive rate at true positive rate y.

        Parameters
        ----------
        y : float
            In [0, 1].

        Returns
        -------
        float
            In [0, 1].
        """


@dataclass(frozen=True)
class LinesCurve:
    """(ε_i, δ_i)-DP for several pairs at once; the bound is the strictest of them.

    Parameters
    ----------
    epsilons, deltas : numpy.ndarray
        The pairs, (k,) each.
    """

    epsilons: np.ndarray
    deltas: np.ndarray

    def forward(self, x: float) -> float:
        """See `TradeOff.forward`."""
        rising = np.exp(self.epsilons) * x + self.deltas
        falling = 1 - np.exp(-self.epsilons) * (1 - self.deltas - x)
        return float(min(1.0, rising.min(), falling.min()))

    def inverse(self, y: float) -> float:
        """See `TradeOff.inverse`."""
        rising = np.exp(-self.epsilons) * (y - self.deltas)
        falling = 1 - self.deltas - np.exp(self.epsilons) * (1 - y)
        return float(max(0.0, rising.max(), falling.max()))


@dataclass(frozen=True)
class ApproximateCurve:
    """(ε, δ)-DP and nothing else.

    Parameters
    ----------
    epsilon, delta : float
        The pair.
    """

    epsilon: float
    delta: float

    def forward(self, x: float) -> float:
        """See `TradeOff.forward`."""
        e = math.exp(self.epsilon)
        return min(1.0, e * x + self.delta, 1 - (1 - self.delta - x) / e)

    def inverse(self, y: float) -> float:
        """See `TradeOff.inverse`."""
        e = math.exp(self.epsilon)
        return max(0.0, (y - self.delta) / e, 1 - self.delta - e * (1 - y))


@dataclass(frozen=True)
class GaussianCurve:
    """μ-Gaussian DP.

    Parameters
    ----------
    mu : float
        μ.
    """

    mu: float

    def forward(self, x: float) -> float:
        """See `TradeOff.forward`."""
        from scipy.special import ndtr, ndtri

        return float(ndtr(ndtri(x) + self.mu))

    def inverse(self, y: float) -> float:
        """See `TradeOff.inverse`."""
        from scipy.special import ndtr, ndtri

        return float(ndtr(ndtri(y) - self.mu))


def plan_curve(plan: PrivacyPlan) -> LinesCurve:
    """The trade-off curve of what a plan accounts, bounded from above by lines.

    Parameters
    ----------
    plan : PrivacyPlan
        The plan.

    Returns
    -------
    LinesCurve

    Examples
    --------
    >>> import fldp
    >>> plan = fldp.calibrate(epsilon=1.0, delta=1e-5, rounds=1, clients=10)
    >>> 0.019 < plan_curve(plan).forward(0.01) < 0.022
    True
    """
    events = [dataclasses.replace(plan.event, rounds=plan.rounds)]
    # Beyond it the curve is that of a guess which almost never is right.
    top = accounting.epsilon_of(events, _NEGLIGIBLE, plan.adjacency)
    epsilons = np.linspace(0.0, top, _LINES)
    deltas = [accounting.delta_of(events, e, plan.adjacency) for e in epsilons.tolist()]
    return LinesCurve(epsilons, np.array(deltas))
