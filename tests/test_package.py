"""The package as a whole: what importing costs, which way imports point, that names resolve."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fldp

FOLDER = Path(fldp.__file__).parent
ORDER = (
    "checks", "binomial", "gaussian", "events", "pairs", "pld", "account", "accounting", "report",
    "statement", "plan", "records", "recipe", "extrapolation", "files", "chain", "ledger", "verify",
    "cli", "parameters", "clipping", "noise", "reference", "aggregation", "draws", "sampling",
    "clients", "isolation", "stacked", "engines", "local", "server", "history", "checkpoint",
    "setting", "rounds", "training", "baselines",
    "findings", "scores", "limits", "bounds", "one_run", "trials", "one_shot", "canaries",
    "neighbours", "membership", "attacks", "pipelines", "trainings", "audit",
    "torchvision_compat", "datasets", "plotting",
)  # fmt: skip
TORCH_FREE = ORDER[: ORDER.index("parameters")]
HEAVY = ("torch", "scipy", "opacus", "matplotlib", "sklearn", "torchvision", "dp_accounting")


def imports(path: Path, top_level_only: bool) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


@pytest.mark.parametrize("name", [n for n in fldp.__all__ if not n.startswith("_")])
def test_every_public_name_resolves(name: str) -> None:
    assert getattr(fldp, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        fldp.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    "code",
    [
        "import fldp",
        "import fldp; fldp.calibrate(epsilon=8.0, delta=1e-3, rounds=60, clients=480, cohort=120)",
        "import fldp.cli; fldp.cli.main(['epsilon', '--help'])",
    ],
)
def test_the_planning_path_loads_nothing_heavy(code: str) -> None:
    check = (
        f"import sys\ntry:\n    exec({code!r})\nexcept SystemExit:\n    pass\n"
        f"loaded = [m for m in {HEAVY!r} if m in sys.modules]\nassert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", check], check=True, capture_output=True)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.stem)
def test_imports_point_downward_only(path: Path) -> None:
    if path.stem.startswith("__"):
        return
    assert path.stem in ORDER, f"{path.name} is not on the map: add it to ORDER and to the map"
    for name in imports(path, top_level_only=True):
        if name.startswith("fldp."):
            other = name.split(".")[1]
            assert other not in ORDER or ORDER.index(other) < ORDER.index(path.stem), name
    if path.stem in TORCH_FREE:
        assert not {n.split(".")[0] for n in imports(path, top_level_only=True)} & set(HEAVY)


def test_every_module_has_its_tests() -> None:
    shared = {"engines": "stacked"}
    here = Path(__file__).parent
    for path in FOLDER.glob("[a-z]*.py"):
        assert (here / f"test_{shared.get(path.stem, path.stem)}.py").exists(), path.stem


def test_contributors_are_told_the_order() -> None:
    text = (FOLDER.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = re.findall(r"`(\w+)`", text[text.index("in this order:") : text.index("Those up to")])
    assert told == [name for name in ORDER if (FOLDER / f"{name}.py").exists()]


def test_the_package_stays_small() -> None:
    lines = {p.name: p.read_text(encoding="utf-8").count("\n") for p in FOLDER.glob("*.py")}
    assert sum(lines.values()) < 7000, lines
    assert max(lines.values()) <= 620, lines


def test_help_is_something_a_newcomer_can_act_on() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fldp"], capture_output=True, text=True, check=False
    )
    assert "fldp calibrate --epsilon" in result.stdout + result.stderr
