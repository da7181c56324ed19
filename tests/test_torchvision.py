"""torchvision imports beside a torch that its operators do not match, and a match is left alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A stand-in torchvision that, like the real one, registers a shape for an operator of its own.
FAKE = """
import sys, types, torch
matched = {matched}
if matched:
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
class Finder:
    def find_spec(self, name, path=None, target=None):
        from importlib.machinery import ModuleSpec
        return ModuleSpec(name, self) if name == "torchvision" else None
    def create_module(self, spec):
        return types.ModuleType(spec.name)
    def exec_module(self, module):
        if not hasattr(torch.ops.torchvision, "nms"):
            raise RuntimeError("operator torchvision::nms does not exist")
        module.works = True
sys.meta_path.insert(0, Finder())
from fldp import datasets as compat
assert compat.import_torchvision().works
print("declared" if compat._libraries else "left alone")
"""


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize(("matched", "said"), [(False, "declared"), (True, "left alone")])
def test_both_ways_with_a_stand_in(matched: bool, said: str) -> None:
    assert run(FAKE.format(matched=matched)) == said


@pytest.mark.slow
def test_the_real_one_imports_with_what_the_book_needs() -> None:
    code = (
        "from fldp.datasets import import_torchvision\n"
        "torchvision = import_torchvision()\n"
        "import torchvision.transforms.v2\n"
        "print(torchvision.datasets.MNIST.__name__, torchvision.models.resnet18.__name__)"
    )
    assert run(code) == "MNIST resnet18"


@pytest.mark.slow
def test_any_other_failure_is_raised_as_it_is() -> None:
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'torchvision':\n"
        "            raise RuntimeError('something else')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from fldp.datasets import import_torchvision\n"
        "try:\n    import_torchvision()\n"
        "except RuntimeError as error:\n    print(error)"
    )
    assert run(code) == "something else"
