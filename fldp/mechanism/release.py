"""What leaves the server, and what it saw in the clear, kept apart."""

from __future__ import annotations

import logging
import warnings
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fldp.accounting.events import RoundEvent

_LOG = logging.getLogger(__name__)
# What a warning shows of a problem, in which a sender's own words may stand.
_SHOWN = 200


class RoundWarning(UserWarning):
    """A round taught the model little or nothing; its text says whether it may be shown."""


class SkippedRound(ValueError):
    """Too few uploads came for a release: nothing left the server, and the round is spent.

    Under distributed trust alone, where how many came is public.
    """


@dataclass(frozen=True, repr=False)
class PrivateDiagnostics:
    """What the server saw in the clear. NOT for release: nothing in it was noised.

    Parameters
    ----------
    norms : list of float
        Norms of the contributions as they came; 0 for a NaN or an infinity, and of a value beyond
        2^40 that of the update scaled down to it.
    clipped_fraction : float
        The share of the usable ones that was beyond C.
    malformed : int
        How many contributed exactly zero, because they held a NaN, an infinity or an unusable
        weight, had another structure, or came a second time from one client.
    count : int
        How many clients took part.
    first_problem : str
        What was wrong with the first of another structure or sender, in words.
    usable : int
        How many were not malformed.
    zero : int
        How many of the usable ones were zero everywhere.

    Examples
    --------
    >>> import fldp, torch
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=2)
    >>> private = fldp.aggregate(torch.tensor([[3.0, 4.0], [0.3, 0.4]]), plan).private
    >>> private.count, private.clipped_fraction
    (2, 0.5)
    """

    norms: list[float]
    clipped_fraction: float
    malformed: int
    count: int
    first_problem: str | None = None
    usable: int = 0
    zero: int = 0

    def warn(self) -> None:
        """Tell the operator, if all contributions were malformed or zero, or most malformed.

        Data must not decide whether a round goes on: where a filter makes errors of warnings, this
        one is logged.
        """
        came = self.usable + self.malformed
        useless = self.malformed + self.zero
        if self.malformed <= self.usable and (useless < came or came == 0):
            return
        text = (
            f"{useless} of {came} contributions of this round taught the model nothing: "
            f"{self.malformed} malformed (NaN, infinite, of another structure, or sent twice), "
            f"{self.zero} zero everywhere"
        )
        if self.first_problem is not None:
            text += f"; the first problem: {self.first_problem[:_SHOWN]}"
        elif self.malformed:
            text += "; training that diverged needs a lower learning rate"
        else:
            text += "; look whether anything is trained at all"
        text += ". This warning is as private as the data: not for release"
        try:
            warnings.warn(text, RoundWarning, stacklevel=2)
        except RoundWarning:
            _LOG.warning(text)

    def __repr__(self) -> str:
        return "PrivateDiagnostics(<not for release>)"


@dataclass(frozen=True, eq=False)
class Release:
    """What leaves the server: the noisy mean, and facts that cost nothing or are paid for.

    Pickles, copies, `asdict`, `vars` and `repr` of a release carry these fields and nothing else.
    What the server saw in the clear stays beside the live object, in `private`.

    Parameters
    ----------
    mean : update
        The noisy mean, in the structure of the updates.
    noise_std : float
        The standard deviation of the noise on each of its coordinates. Under central trust it
        follows from the plan alone. Under distributed and local trust every client adds noise, so
        it grows with the square root of the count, and publishes the count. Of noise that is
        correlated over rounds it is that of this round alone.
    denominator : float
        What the noisy sum was divided by, a public number.
    event : Event
        What the accountant composes.
    clip_norm : float
        C, the norm that clipped.
    reproducible : bool
        The caller's generator made the noise, and its seed can remove it.
    unclipped : float, optional
        The noised fraction within C that an adaptive clip paid for, else None.

    Examples
    --------
    >>> import fldp, torch
    >>> plan = fldp.calibrate(epsilon=8.0, delta=1e-4, rounds=1, clients=1000)
    >>> release = fldp.aggregate(torch.ones(1000, 4) / 2, plan)
    >>> release.denominator, release.clip_norm, release.reproducible
    (1000.0, 1.0, False)
    """

    mean: Any
    noise_std: float
    denominator: float
    event: RoundEvent
    clip_norm: float
    reproducible: bool
    unclipped: float | None = None

    @property
    def private(self) -> PrivateDiagnostics:
        """What the server saw; NOT for release. AttributeError on a copy or unpickled release."""
        found = _PRIVATE.get(self)
        if found is None:
            raise AttributeError(
                "only the object that aggregate or release() returned has a private part: copies "
                "and pickles are made without it"
            )
        return found


# Kept beside the releases, not in them, so that nothing which walks an object's fields meets it.
_PRIVATE: weakref.WeakKeyDictionary[Release, PrivateDiagnostics] = weakref.WeakKeyDictionary()


def keep_beside(release: Release, private: PrivateDiagnostics) -> None:
    """Make `private` readable as `release.private`, for as long as this object lives."""
    _PRIVATE[release] = private
