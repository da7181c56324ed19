"""What is imported on first use: a type checker sees the same names as a caller."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fldp
import fldp.audit
import fldp.mechanism
import fldp.simulation

PACKAGES = (fldp, fldp.audit, fldp.mechanism, fldp.simulation)


def seen_by_a_type_checker(path: Path) -> set[str]:
    """What `if TYPE_CHECKING:` imports."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                assert isinstance(line, ast.ImportFrom)
                found |= {name.asname or name.name for name in line.names}
    return found


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_names_are_those_of_the_type_checker(package) -> None:
    assert package.__file__
    offered = {name for name in package.__all__ if not name.startswith("_")}
    assert offered == seen_by_a_type_checker(Path(package.__file__))
    for name in offered:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"{package.__name__}.*no_such_name"):
        package.no_such_name  # noqa: B018


def test_a_public_name_is_no_module_of_its_floor() -> None:
    """The import system would put the module in the name's place."""
    modules = {path.stem for path in Path(fldp.audit.__file__ or "").parent.glob("*.py")}
    assert not modules & set(fldp.audit.__all__)


@pytest.mark.slow
def test_r17_a_mistyped_keyword_is_found_by_mypy(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    good = "import fldp\nfldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480)\n"
    # An editable installation is an import hook, which a type checker does not follow.
    environment = os.environ | {"MYPYPATH": str(Path(fldp.__file__ or "").parent.parent)}
    for code, word in ((good, ""), (good.replace("epsilon=", "epsilom="), "epsilom")):
        file = tmp_path / "code.py"
        file.write_text(code)
        command = [sys.executable, "-m", "mypy", "--config-file=", "--follow-imports=silent"]
        done = subprocess.run(
            [*command, str(file)], capture_output=True, text=True, cwd=tmp_path, env=environment
        )
        assert (done.returncode == 0) == (not word), done.stdout + done.stderr
        assert word in done.stdout
