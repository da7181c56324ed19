"""plan.files: what is said where a file system cannot do what a ledger needs."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from fldp.plan import files

fcntl = pytest.importorskip("fcntl")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.atomic(path) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert path.read_text() == "old"
    with files.atomic(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("code", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_held_lock_is_a_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", _refuse(code))
    with (
        open(tmp_path / "f", "ab") as file,
        pytest.raises(ValueError, match="has a writer already"),
    ):
        files.lock(file, tmp_path / "f")


@pytest.mark.parametrize(
    "code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL]
)
def test_any_other_refusal_is_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(fcntl, "flock", _refuse(code))
    with open(tmp_path / "f", "ab") as file, pytest.raises(ValueError, match="no file locks"):
        files.lock(file, tmp_path / "f")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EACCES])
def test_a_folder_that_cannot_be_synced_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(os, "fsync", _refuse(code))
    with pytest.warns(UserWarning, match="cannot be synced"):
        files.sync_folder(tmp_path)


def _refuse(code: int):
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return refuse
