"""What a check gives that is neither everything nor nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Part:
    """What a check returns that is neither passed in full nor failed.

    Parameters
    ----------
    fraction : float
        Of the check's points, between 0 and 1.
    missing : str
        What is missing, for the student to read; "" where nothing is.
    score : float, optional
        For a leaderboard; it earns nothing.
    """

    fraction: float
    missing: str
    score: float | None = None
