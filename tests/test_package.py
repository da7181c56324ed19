"""The package as a whole: what importing costs, which way imports point, that names resolve."""

from __future__ import annotations

import ast
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tokenize
import zipfile
from pathlib import Path

import pytest
import tomllib
import yaml
from packaging.requirements import Requirement

import fldp

FOLDER = Path(fldp.__file__).parent
HERE = FOLDER.parent
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
ORDER = (
    "checks", "binomial", "gaussian", "events", "pairs", "gaussian_pairs", "guide",
    "composition", "laws", "curve", "pld", "opacus", "account", "divergences", "exchange",
    "search", "calibration", "accounting", "report", "statement", "plan", "records", "recipe",
    "extrapolation", "files", "chain", "ledger", "verify", "cli", "intake", "parameters",
    "clipping", "summation", "noise", "reference", "release", "aggregation", "draws",
    "sampling", "clients", "isolation", "stacked", "engines", "local", "server", "history",
    "checkpoint", "setting", "rounds", "training", "baselines", "findings", "scores", "bounds",
    "limits", "one_run", "trials", "one_shot", "canaries", "neighbours", "pipelines",
    "trainings", "membership", "attacks", "audit", "torchvision_compat", "datasets",
    "plotting",
)  # fmt: skip
TORCH_FREE = ORDER[: ORDER.index("intake")]
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
    # What one question runs through is tested through the question.
    shared = {
        "engines": "stacked",
        "composition": "accounting", "search": "calibration", "opacus": "accounting",
        "gaussian_pairs": "pairs", "curve": "pld", "guide": "pld", "laws": "pld",
    }  # fmt: skip
    here = Path(__file__).parent
    for path in FOLDER.glob("[a-z]*.py"):
        assert (here / f"test_{shared.get(path.stem, path.stem)}.py").exists(), path.stem


def test_contributors_are_told_the_order() -> None:
    text = (FOLDER.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = re.findall(r"`(\w+)`", text[text.index("in this order:") : text.index("Those up to")])
    assert told == [name for name in ORDER if (FOLDER / f"{name}.py").exists()]


def code_lines(path: Path) -> int:
    """Lines of code: no blank, comment or documentation lines."""
    text = path.read_text(encoding="utf-8")
    no_code = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    }  # fmt: skip
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in no_code:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            lines -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(lines)


def test_the_package_stays_small() -> None:
    lines = {p.name: code_lines(p) for p in FOLDER.glob("*.py")}
    assert sum(lines.values()) < 9900, lines
    assert max(lines.values()) <= 400, lines


def test_every_import_is_declared() -> None:
    distributions = {"sklearn": "scikit-learn", "dp_accounting": "dp-accounting"}
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    names = {Requirement(text).name for text in [*PROJECT["dependencies"], *extras]}
    own = {"fldp", *sys.stdlib_module_names}
    for path in FOLDER.glob("*.py"):
        for name in {module.split(".")[0] for module in imports(path, top_level_only=False)} - own:
            assert distributions.get(name, name) in names, f"{path.name} imports {name}"


def test_the_version_is_one() -> None:
    citation = yaml.safe_load((HERE / "CITATION.cff").read_text(encoding="utf-8"))
    assert fldp.__version__ == PROJECT["version"] == citation["version"]


def test_what_is_installed_is_the_package_alone(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(HERE / name, source)
    for name in ("fldp", "tests"):
        shutil.copytree(HERE / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = (
        "from setuptools import build_meta as build; build.build_wheel('.'); build.build_sdist('.')"
    )
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, capture_output=True)
    wheel = zipfile.ZipFile(next(source.glob("*.whl")))
    files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert files == {f"fldp/{path.name}" for path in FOLDER.iterdir() if path.is_file()}
    assert "fldp/py.typed" in files
    folder = f"fldp-{fldp.__version__}.dist-info"
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()
    assert b"fldp = fldp.cli:main" in wheel.read(f"{folder}/entry_points.txt")
    with tarfile.open(next(source.glob("*.tar.gz"))) as archive:
        kept = {name.partition("/")[2] for name in archive.getnames()}
    assert files | {"LICENSE", "README.md", "pyproject.toml"} <= kept
    assert not any(name.startswith("tests/") for name in kept), "half of the tests would not run"


def test_help_is_something_a_newcomer_can_act_on() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fldp"], capture_output=True, text=True, check=False
    )
    assert "fldp calibrate --epsilon" in result.stdout + result.stderr
