"""SModelS/smodels#37, nipy/nipype#1370, miniwdl#483: NFS, EFS and some FUSE have no flock."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import fldp

fcntl = pytest.importorskip("fcntl")


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF])
def test_a_folder_without_locks_is_not_taken_for_a_writer(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", none)
    said = ""
    try:
        fldp.Ledger(tmp_path / "ledger.jsonl")
    except Exception as error:
        said = str(error)
    assert "writer already" not in said
