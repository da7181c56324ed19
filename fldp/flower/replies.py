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

# Replies that are held at once: memory that is given back one by one costs twice the time.
AT_ONCE = 16
# Seconds between two looks at who has answered: the first, and the longest.
_POLL, _LONGEST = 0.1, 3.0


def exchange(grid: Grid, messages: list[Message], timeout: float) -> Iterator[Message]:
    """Send messages, and yield the replies to them until all have come or time is up.

    Replies are asked for one by one. What a SuperNode uploads is unpacked here, and may be of any
    bytes: a reply that cannot be unpacked, or says that it is another node's, takes nobody else's
    with it, and its sender is as silent as one that does not answer.

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
        Where the SuperLink takes no messages at all: nothing is spent then.
    """
    waiting = _sent(grid, messages)
    end = time.monotonic() + timeout
    pause = _POLL
    while waiting:
        before = len(waiting)
        look = time.monotonic()
        names = sorted(waiting)
        for start in range(0, before, AT_ONCE):
            held = []
            for name in names[start : start + AT_ONCE]:
                found, reply = _reply(grid, name, waiting[name])
                if found:
                    del waiting[name]
                if reply is not None:
                    held.append(reply)
            yield from held
        if time.monotonic() >= end:
            break
        pause = _POLL if len(waiting) < before else min(2 * pause, _LONGEST)
        if waiting:
            # At least as long as the look took: a large cohort must not keep the SuperLink busy.
            rest = max(pause, time.monotonic() - look)
            time.sleep(min(rest, max(0.0, end - time.monotonic())))


def _sent(grid: Grid, messages: list[Message]) -> dict[str, int]:
    """The names of the messages that are on their way, each with the node that it goes to.

    A node that has gone since it was drawn is silent. Whether anybody has is not told, by a log
    or by an error: it would tell who was drawn.
    """
    if not messages:
        return {}
    with silence():
        names = list(grid.push_messages(messages))
    if not names:
        raise ValueError(
            "the SuperLink took no message of this round (the model may be too large for it): "
            "nothing was released"
        )
    sent = {message.metadata.message_id: message.metadata.dst_node_id for message in messages}
    return {name: sent[name] for name in names if name}


def _reply(grid: Grid, name: str, node: int) -> tuple[bool, Message | None]:
    """Whether a message was answered, and the reply if it is one of the node that was asked."""
    try:
        with silence():
            found = list(grid.pull_messages([name]))
    except Exception:  # whatever was sent, the round goes on
        # A connection that is lost ends it: that raises here.
        list(grid.get_node_ids())
        return True, None
    if not found:
        return False, None
    # The bytes of a reply say whose it is: only the name that was asked for is the SuperLink's.
    metadata = found[0].metadata
    genuine = metadata.reply_to_message_id == name and metadata.src_node_id == node
    return True, found[0] if genuine and len(found) == 1 else None


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
