"""The README's Python is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import torch

README = Path(__file__).resolve().parent.parent / "README.md"


def test_the_examples_run() -> None:
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 2
    names: dict[str, object] = {"updates": [torch.randn(10) for _ in range(120)]}
    for block in blocks:
        exec(block, names)
    history = names["history"]
    assert len(history.accuracy) == 60  # type: ignore[attr-defined]
