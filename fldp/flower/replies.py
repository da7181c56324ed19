"""A round's messages out, and its replies in as they come: memory for a few of them."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from flwr.app import Message
from flwr.serverapp import Grid

from fldp.mechanism.release import RoundWarning

# Replies that are asked for, and held, at once.
AT_ONCE = 16
# Seconds between two looks at who has answered: the first, and the longest.
_POLL, _LONGEST = 0.1, 3.0


def exchange(grid: Grid, messages: list[Message], timeout: float) -> Iterator[Message]:
    """Send messages, and yield the replies to them until all have come or time is up.

    Parameters
    ----------
    grid : Grid
        Flower's.
    messages : list of Message
        To the cohort; there may be none.
    timeout : float
        Seconds, from the first look on.

    Yields
    ------
    Message
        Once for each message that was answered in time.

    Raises
    ------
    ValueError
        Where no message could be sent at all: nothing is spent then.
    """
    waiting = {name for name in grid.push_messages(messages) if name} if messages else set()
    if messages and not waiting:
        raise ValueError(
            "the SuperLink took no message of this round (a model that is too large, or no "
            "connection): nothing was released"
        )
    end = time.monotonic() + timeout
    pause = _POLL
    while waiting:
        before = len(waiting)
        names = sorted(waiting)
        for start in range(0, before, AT_ONCE):
            for reply in grid.pull_messages(names[start : start + AT_ONCE]):
                waiting.discard(reply.metadata.reply_to_message_id)
                yield reply
        if time.monotonic() >= end:
            break
        pause = _POLL if len(waiting) < before else min(2 * pause, _LONGEST)
        if waiting:
            time.sleep(min(pause, max(0.0, end - time.monotonic())))


@contextmanager
def silence() -> Iterator[None]:
    """Neither Flower's log nor a warning of ours tells what a round saw.

    A run's log is read by whoever may submit runs.
    """
    logger = logging.getLogger("flwr")
    before = logger.disabled
    logger.disabled = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RoundWarning)
            yield
    finally:
        logger.disabled = before
