"""Data sets as tensors: images in [0, 1] as float32, labels as int64.

`digits` is embedded in scikit-learn: no files, no network. The others come through torchvision,
with its own download, checksum and cache, from the folder `root`, else `FLDP_DATA`, else a
per-user cache. Nothing is ever substituted for a data set that is not there.
"""

from __future__ import annotations

import http.client
import importlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

# x and y.
Data = tuple[Tensor, Tensor]
Root = str | os.PathLike[str] | None
# A dead connection must end in an error message, not in a notebook that hangs.
_NETWORK_TIMEOUT = 20.0
# The largest value of a pixel.
_DIGITS_WHITE = 16.0
_WHITE = 255.0
# Dimensions of images in colour.
_IN_COLOUR = 4
# Operators that torchvision wants to describe while it is imported.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[torch.library.Library] = []


class DatasetUnavailable(FileNotFoundError):
    """The data set is neither on disk nor to be downloaded; the message says where was looked."""


def folder(root: Root = None) -> Path:
    """Where data sets live.

    Parameters
    ----------
    root : path, optional
        None: `FLDP_DATA` of the environment, else a per-user cache.

    Returns
    -------
    Path
    """
    if root is not None:
        return Path(root).expanduser()
    if os.environ.get("FLDP_DATA"):
        return Path(os.environ["FLDP_DATA"]).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "fldp"


def digits() -> Data:
    """1,797 handwritten digits of 8 by 8 pixels: x (1797, 64) in [0, 1], y (1797,).

    Embedded in scikit-learn (from the UCI repository, test half); needs neither files nor network.

    Returns
    -------
    (Tensor, Tensor)

    Examples
    --------
    >>> x, y = digits()
    >>> x.shape, float(x.max()), y.dtype
    (torch.Size([1797, 64]), 1.0, torch.int64)
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    x = torch.from_numpy(np.asarray(data.data / _DIGITS_WHITE, dtype=np.float32))
    return x, torch.from_numpy(np.asarray(data.target, dtype=np.int64))


def _declare_missing() -> list[str]:
    """Declare the schemas that are missing; their names."""
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    for name in missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(_SCHEMAS[name])
        _libraries.append(library)  # a library that is collected takes its schemas with it
    return missing


def import_torchvision() -> ModuleType:
    """torchvision, with `datasets`, `transforms` and `models` importable.

    A CPU build of torch beside the default torchvision wheel has no `torchvision::nms`: importing
    torchvision then fails while it registers shapes for operators that are not there. Data sets,
    transforms and models need none of them. Declaring the two schemas is enough to import; calling
    such an operator still fails, loudly. A matched build registers them itself and is left alone.
    Only the failure described above is repaired; any other is raised as it is.

    Returns
    -------
    module

    Examples
    --------
    >>> import_torchvision().datasets.MNIST.__name__
    'MNIST'
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    _declare_missing()
    return importlib.import_module("torchvision")


def _through_torchvision(name: str, root: Root, download: bool, **options: Any) -> Data:
    where = folder(root)
    make: Callable[..., Any] = getattr(import_torchvision().datasets, name)
    data, reason = _attempt(make, where, download=False, **options)
    if data is None and download:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_NETWORK_TIMEOUT)
        try:
            data, reason = _attempt(make, where, download=True, **options)
        finally:
            socket.setdefaulttimeout(before)
    if data is None:
        tried = "its download failed" if download else "download=False"
        raise DatasetUnavailable(
            f"{name} is not in {where} (torchvision's layout) and {tried}: {reason}. Give its "
            "folder as root= or in FLDP_DATA, or use fldp.datasets.digits(), which is embedded."
        ) from reason
    pixels = torch.as_tensor(data.data)
    x = pixels.to(torch.float32).div_(_WHITE)
    # torchvision has channels last, and none for grey.
    x = x.permute(0, 3, 1, 2).contiguous() if x.ndim == _IN_COLOUR else x.unsqueeze(1)
    return x, torch.as_tensor(data.targets, dtype=torch.int64)


def _attempt(
    make: Callable[..., Any], where: Path, download: bool, **options: Any
) -> tuple[Any, BaseException | None]:
    """A data set of torchvision, or why it cannot be had."""
    try:
        if download:
            where.mkdir(parents=True, exist_ok=True)
        return make(str(where), download=download, **options), None
    except (RuntimeError, OSError, http.client.HTTPException) as error:
        return None, error


def mnist(root: Root = None, *, train: bool = True, download: bool = True) -> Data:
    """MNIST: x (60000 or 10000, 1, 28, 28), y.

    Parameters
    ----------
    root : path, optional
        See `folder`.
    train : bool
        The training half, else the test half.
    download : bool
        Whether to fetch what is not there.

    Returns
    -------
    (Tensor, Tensor)

    Raises
    ------
    DatasetUnavailable
        Where it is neither on disk nor to be downloaded.
    """
    return _through_torchvision("MNIST", root, download, train=train)


def fashion_mnist(root: Root = None, *, train: bool = True, download: bool = True) -> Data:
    """Fashion-MNIST, shaped like MNIST.

    Parameters
    ----------
    root : path, optional
        See `folder`.
    train : bool
        The training half, else the test half.
    download : bool
        Whether to fetch what is not there.

    Returns
    -------
    (Tensor, Tensor)

    Raises
    ------
    DatasetUnavailable
        Where it is neither on disk nor to be downloaded.
    """
    return _through_torchvision("FashionMNIST", root, download, train=train)


def emnist(
    root: Root = None,
    *,
    split: str = "digits",
    train: bool = True,
    download: bool = True,
) -> Data:
    """EMNIST, upright. The labels are torchvision's: those of "letters" run from 1 to 26.

    Parameters
    ----------
    root : path, optional
        See `folder`.
    split : str
        One of torchvision's: "digits", "letters", "byclass", ...
    train : bool
        The training half, else the test half.
    download : bool
        Whether to fetch what is not there.

    Returns
    -------
    (Tensor, Tensor)

    Raises
    ------
    DatasetUnavailable
        Where it is neither on disk nor to be downloaded.
    """
    x, y = _through_torchvision("EMNIST", root, download, train=train, split=split)
    return x.transpose(2, 3).contiguous(), y


def cifar10(root: Root = None, *, train: bool = True, download: bool = True) -> Data:
    """CIFAR-10: x (50000 or 10000, 3, 32, 32), y.

    Parameters
    ----------
    root : path, optional
        See `folder`.
    train : bool
        The training half, else the test half.
    download : bool
        Whether to fetch what is not there.

    Returns
    -------
    (Tensor, Tensor)

    Raises
    ------
    DatasetUnavailable
        Where it is neither on disk nor to be downloaded.
    """
    return _through_torchvision("CIFAR10", root, download, train=train)


NAMES: dict[str, Callable[..., Data]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "emnist": emnist,
    "cifar10": cifar10,
}


def load(name: str, **options: Any) -> Data:
    """A data set by name.

    Parameters
    ----------
    name : str
        A key of `NAMES`.
    **options
        Those of the data set's own function.

    Returns
    -------
    (Tensor, Tensor)

    Raises
    ------
    ValueError
        It lists the names when there is none such.

    Examples
    --------
    >>> len(load("digits")[1])
    1797
    """
    if name not in NAMES:
        raise ValueError(f"no data set is called {name!r}; there are {', '.join(NAMES)}")
    return NAMES[name](**options)
