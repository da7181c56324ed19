"""Execute notebooks and store their outputs: ``python tools/run_notebooks.py [NOTEBOOK ...]``.

Without arguments every chapter. Outputs are stored as the book needs them: in order, with nothing
in them that changes from run to run but what the cells print.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

BOOK = Path(__file__).resolve().parent.parent / "book"
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}
# Of what a kernel says about an output: the names of glued ones, how large a figure is.
KEPT = {"scrapbook", "image/png"}


def merged(outputs: list[Any]) -> list[Any]:
    """Consecutive prints as one output, however the kernel happened to flush them."""
    kept: list[Any] = []
    for output in outputs:
        stream = output.output_type == "stream"
        if stream and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def run(path: Path) -> float:
    """Execute one notebook in place; seconds."""
    notebook = nbformat.read(path, as_version=4)
    started = time.perf_counter()
    resources = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, timeout=300, kernel_name="python3", record_timing=False, resources=resources
    ).execute()
    notebook.metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number:02d}"
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            # What goes to stderr is the kernel's own chatter; a warning of ours must be fixed.
            noise = [o for o in cell.outputs if o.get("name") == "stderr"]
            if noise:
                print(f"{path.name} {cell.id} wrote to stderr: {noise[0]['text'][:200]}")
            cell.outputs = merged(cell.outputs)
            for output in cell.outputs:
                if output.output_type in ("display_data", "execute_result"):
                    output.metadata = {k: v for k, v in output.metadata.items() if k in KEPT}
    nbformat.write(notebook, path)
    return time.perf_counter() - started


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(map(str, BOOK.glob("*.ipynb"))):
        print(f"{Path(name).name}: {run(Path(name)):.0f} s", flush=True)
