"""What a ledger and a checkpoint ask of the file system: one writer, and bytes that stay."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# What the system answers when another process holds the lock; anything else is no answer to that.
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


def lock(file: BinaryIO, path: Path) -> None:
    """Make this process the only writer of an open file, until the file is closed.

    It is the system's own lock, which a crashed process cannot leave behind.

    Parameters
    ----------
    file
        The file, open for writing.
    path
        Its name, for messages.

    Raises
    ------
    ValueError
        Somebody else writes, or the file system knows no locks.
    """
    try:
        _system_lock(file)
    except OSError as error:
        if error.errno in _HELD:
            raise ValueError(f"{path} has a writer already: one run, one ledger") from None
        raise ValueError(
            f"{path} cannot be locked ({error.strerror or error}): this file system has no file "
            "locks, so a second process could write unseen; put the file on a local disk, or pass "
            "lock=False if you make sure yourself that one process writes at a time"
        ) from None


def _system_lock(file: BinaryIO) -> None:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        # One byte stands for the file.
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sync_folder(folder: Path) -> None:
    """Put a folder's list of names on disk, so that a new file outlives a power cut.

    Some network and user-space file systems cannot: then a warning says what that leaves open.

    Parameters
    ----------
    folder
        Where a file was made or replaced.
    """
    # Elsewhere a folder cannot be opened, and the system keeps its names by itself.
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        warnings.warn(
            f"{folder} cannot be synced ({error.strerror or error}): after a power cut a file that "
            "was just made or replaced there may be missing or old; a local disk has no such gap",
            UserWarning,
            stacklevel=3,
        )


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that replaces it, on disk, when the block has succeeded.

    Parameters
    ----------
    path
        What is to be written, whole or not at all.

    Yields
    ------
    Path
        Where the block writes.

    Examples
    --------
    >>> import tempfile
    >>> target = Path(tempfile.mkdtemp()) / "state"
    >>> with atomic(target) as temporary:
    ...     _ = temporary.write_text("whole or not at all")
    >>> target.read_text()
    'whole or not at all'
    """
    temporary = path.with_name(path.name + ".new")
    yield temporary
    # The bytes first, then the name: after a power cut there is the old file or all of the new.
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync_folder(path.parent)
