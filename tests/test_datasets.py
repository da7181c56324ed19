"""fldp.datasets: shapes, ranges, where it looks, and what it says when there is nothing."""

from __future__ import annotations

import http.client
import os
import socket
from pathlib import Path

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
