"""Import torchvision where its compiled operators do not match torch.

A CPU build of torch beside the default torchvision wheel has no ``torchvision::nms``: importing
torchvision then fails while it registers shapes for operators that are not there. Data sets,
transforms and models need none of them. Declaring the two schemas is enough to import; calling such
an operator still fails, loudly. A matched build registers them itself and is left alone.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
_libraries: list[torch.library.Library] = []


def _declare_missing() -> list[str]:
    """Declare the schemas that are missing; their names."""
    missing = [name for name in _SCHEMAS if not hasattr(torch.ops.torchvision, name)]
    for name in missing:
        library = torch.library.Library("torchvision", "FRAGMENT")
        library.define(_SCHEMAS[name])
        _libraries.append(library)  # a library that is collected takes its schemas with it
    return missing


def import_torchvision() -> ModuleType:
    """torchvision, with ``datasets``, ``transforms`` and ``models`` importable.

    Only the failure described above is repaired; any other is raised as it is.

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
