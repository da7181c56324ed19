"""Build the HTML book, strictly and from clean: ``python tools/build_book.py [--root DIR]``.

Notebooks are executed here, in parallel, unless an execution of the same code cells with the same
package and the same environment is in the cache. Pages are always rendered anew: an incremental
rebuild after a failed build would not report the failure again. The exit status is not zero if a
cell crashes, a reference is broken or an image is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import twins
from jupyter_cache import get_cache
from jupyter_cache.executors import load_executor
from sphinx_external_toc.parsing import parse_toc_yaml

HERE = Path(__file__).resolve().parent.parent
CELL_TIMEOUT = 300


def environment_digest() -> str:
    """A digest of everything but the notebooks that decides what a cell prints."""
    digest = hashlib.sha256(sys.version.encode())
    for path in [HERE / "requirements.txt", *sorted((HERE / "fldp").rglob("*.py"))]:
        digest.update(str(path.relative_to(HERE)).encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(os.environ.get("FLDP_DATA", "").encode())
    return digest.hexdigest()


def notebooks(root: Path) -> list[Path]:
    """The notebooks that the table of contents names."""
    named = [root / f"{page}.ipynb" for page in parse_toc_yaml(root / "_toc.yml")]
    return [path for path in named if path.exists()]


def execute(root: Path, workers: int) -> bool:
    """Execute what is not in the cache; True if every notebook ran to its end."""
    path = root / ".cache" / "book"
    stamp = path / "environment.sha256"
    if not stamp.exists() or stamp.read_text() != environment_digest():
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        stamp.write_text(environment_digest())
    cache = get_cache(path)
    for record in cache.list_project_records():
        cache.remove_nb_from_project(record.pk)
    for notebook in notebooks(root):
        cache.add_nb_to_project(str(notebook))
    stale = cache.list_unexecuted()
    # For the page that says what this build ran, `book/_ext/build_status.py`.
    os.environ["FLDP_EXECUTED"] = " ".join(Path(record.uri).stem for record in stale)
    if not stale:
        print("Every notebook's execution is in the cache.", flush=True)
        return True
    print(f"Executing {len(stale)} notebook(s), {workers} at a time ...", flush=True)
    started = time.perf_counter()
    executor = load_executor("local-parallel" if workers > 1 else "local-serial", cache=cache)
    result = executor.run_and_cache(timeout=CELL_TIMEOUT)
    for uri in [*result.excepted, *result.errored]:
        trace = cache.get_project_record(uri).traceback or "(no traceback: see the log above)"
        print(f"FAILED {Path(uri).relative_to(root)}\n{trace}", file=sys.stderr)
    print(f"Executed in {time.perf_counter() - started:.0f} s.", flush=True)
    return not (result.excepted or result.errored)


def render(root: Path) -> int:
    """Render every page; warnings are errors, and broken references are warnings."""
    shutil.rmtree(root / "_build", ignore_errors=True)
    command = [str(Path(sys.executable).with_name("jupyter-book")), "build", str(root)]
    command += ["--all", "-W", "-n", "--keep-going"]
    return subprocess.run(command, cwd=root, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--root", type=Path, default=HERE, help="the folder with _config.yml")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    if not execute(root, arguments.workers):
        print("The book was not built: a cell crashed (see above).", file=sys.stderr)
        return 1
    failed = render(root)
    if not failed and root == HERE:
        # Beside the pages: what their buttons open and download.
        twins.main([str(root / "_build" / "html" / "notebooks")])
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
