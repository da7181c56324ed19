"""The files that students hand in: which there are, whose, and what is in them.

Nothing is followed, unpacked or run; what is no notebook is a submission with a reason.
"""

from __future__ import annotations

import json
import os
import stat
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from course.checks import names

LARGEST_FILE = 10_000_000
MOST_CELLS = 2_000
# The first line of a cell for a written answer; `course.builder` keeps it.
WRITTEN = "<!-- written: "


@dataclass(frozen=True)
class Submission:
    """One student's notebook, read.

    Parameters
    ----------
    student : str
        From the file's or the folder's name.
    path : Path
        The file.
    assignment : str
        From the notebook's metadata; "" where it does not say.
    cells : list of str
        The code.
    written : dict
        Written answers by question.
    refused : str
        Why it cannot be graded; "" where it can.
    """

    student: str
    path: Path
    assignment: str = ""
    cells: list[str] = field(default_factory=list)
    written: dict[str, str] = field(default_factory=dict)
    refused: str = ""

    @property
    def file(self) -> str:
        """The file's name, as it can be shown."""
        return plain(self.path.name)


def plain(text: str) -> str:
    """Text that can be printed and written anywhere: a name may hold what is no character, and a
    message may hold what moves the cursor of a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in text)


def find(folder: Path) -> list[tuple[str, Path]]:
    """Students and their files, in order.

    Files of ``folder`` are named after the student; a folder in it is a student's, with a notebook
    anywhere below, as nbgrader and most learning platforms lay it out.

    Parameters
    ----------
    folder : Path
        Where the submissions are.

    Raises
    ------
    ValueError
        Where this is no folder.
    """
    if not folder.is_dir():
        raise ValueError(f"SUBMISSIONS is no folder: {folder}")
    found = []
    for path in sorted(folder.iterdir()):
        if _is_a_systems(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            inside = sorted(_notebooks(path))
            # A folder without a notebook is a submission too: it gets a reason.
            found += [(path.name, one) for one in inside] or [(path.name, path)]
        elif path.suffix == ".ipynb" or not path.is_file():
            found.append((path.stem, path))
        else:
            found.append((path.name, path))
    return found


def _is_a_systems(name: str) -> bool:
    """Whether a file is what a system leaves behind, and nobody's submission.

    A name that begins with a dot, unless it is a notebook's; macOS puts one that begins with ``._``
    beside every file, in an archive in a folder of its own.
    """
    if name.startswith("._") or name == "__MACOSX":
        return True
    return name.startswith(".") and not name.endswith(".ipynb")


def _is_notebook(name: str) -> bool:
    return name.endswith(".ipynb") and not _is_a_systems(name)


def _notebooks(folder: Path) -> list[Path]:
    found = []
    for root, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name != ".ipynb_checkpoints"]
        found += [Path(root) / name for name in files if _is_notebook(name)]
    return found


def _content(path: Path) -> bytes:
    """What is in a plain file; neither a link, nor a pipe, nor more than the limit."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        reason = "it is a link" if path.is_symlink() else error.strerror
        raise ValueError(f"the file cannot be read: {reason}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError("not a notebook: no plain file")
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise ValueError(f"the file is larger than {LARGEST_FILE // 1_000_000} MB: clear outputs")
    return content


def _notebook(content: bytes) -> dict[str, Any]:
    try:
        notebook = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not a notebook: {type(error).__name__}") from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("not a notebook: it has no cells")
    if len(notebook["cells"]) > MOST_CELLS:
        raise ValueError(f"the notebook has more than {MOST_CELLS} cells")
    return notebook


def _source(cell: Any) -> tuple[str, str]:
    """Kind and text of a cell, whatever it is."""
    if not isinstance(cell, dict):
        return "", ""
    source = cell.get("source", "")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    text = source if isinstance(source, str) else ""
    # Halves of a character, which JSON may hold and no file may.
    return str(cell.get("cell_type")), text.encode("utf-8", "replace").decode()


def _own(part: Any, key: str) -> str:
    """What the builder wrote into the metadata of a notebook or of a cell; "" where it did not."""
    metadata = part.get("metadata") if isinstance(part, dict) else None
    own = metadata.get("fldp") if isinstance(metadata, dict) else None
    name = own.get(key) if isinstance(own, dict) else None
    return name if isinstance(name, str) else ""


def _assignment(notebook: dict[str, Any]) -> str:
    name = _own(notebook, "assignment")
    return name if name in names() else ""


def written_question(line: str) -> str:
    """The question that a first line marks a cell as the written answer of; else ""."""
    if not line.startswith(WRITTEN):
        return ""
    return line.removeprefix(WRITTEN).strip().removesuffix("-->").strip()


def _written(cell: Any, text: str) -> tuple[str, str]:
    """The question of a written answer and the answer; "" for another cell.

    Whoever replaces the whole text of the cell takes its first line away, too.
    """
    head, _, rest = text.partition("\n")
    marked = written_question(head)
    if marked:
        return marked, rest.strip()
    return _own(cell, "written"), text.strip()


def read(student: str, path: Path) -> Submission:
    """A file as a submission; where it is no notebook, `refused` says so."""
    student = plain(unicodedata.normalize("NFC", student))
    try:
        notebook = _notebook(_content(path))
    except ValueError as error:
        return Submission(student, path, refused=str(error))
    cells = []
    written: dict[str, str] = {}
    for cell in notebook["cells"]:
        kind, text = _source(cell)
        if kind == "code":
            cells.append(text)
        elif kind == "markdown":
            question, answer = _written(cell, text)
            if question:
                written.setdefault(question, answer)
    return Submission(student, path, _assignment(notebook), cells, written)
