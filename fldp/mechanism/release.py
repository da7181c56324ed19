"""What leaves the server, and what it saw in the clear, kept apart."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fldp.accounting import Event


@dataclass(frozen=True, repr=False)
class PrivateDiagnostics:
    """What the server saw in the clear. NOT for release: nothing in it was noised."""

    norms: list[float]
    clipped_fraction: float
    malformed: int
    count: int
    first_problem: str | None = None

    def __repr__(self) -> str:
        return "PrivateDiagnostics(<not for release>)"


@dataclass(frozen=True, eq=False)
class Release:
    """What leaves the server: the noisy mean, and facts that cost nothing or are paid for.

    Pickles, copies, `asdict`, `vars` and `repr` of a release carry these fields and nothing else.
    What the server saw in the clear stays beside the live object, in `private`.

    Parameters
    ----------
    mean : the noisy mean, in the structure of the updates.
    noise_std : the standard deviation of the noise on each of its coordinates. Under central trust
        it follows from the plan alone. Under distributed and local trust every client adds noise,
        so it grows with the square root of the count, and publishes the count.
    denominator : what the noisy sum was divided by, a public number.
    event : what the accountant composes.
    clip_norm : C, the norm that clipped.
    reproducible : the caller's generator made the noise, and its seed can remove it.
    unclipped : the noised fraction within C that an adaptive clip paid for, else None.
    """

    mean: Any
    noise_std: float
    denominator: float
    event: Event
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
