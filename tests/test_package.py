"""The package as a whole: what importing costs, which way imports point, that names resolve."""

from __future__ import annotations

import ast
import graphlib
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
import yaml
from packaging.requirements import Requirement

import fldp

FOLDER = Path(fldp.__file__).parent
HERE = FOLDER.parent
# Before Python 3.11 it is pytest that brings it, under another name.
tomllib = pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli")
PROJECT = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
# From the first floor to the last: a module imports from its own floor or from one before it.
FLOORS = ("accounting", "plan", "mechanism", "simulation", "audit", "flower")
SERVES_ALL = ("_checks", "_lazy", "_moved", "_settings", "_text")
TORCH_FREE = ("accounting", "plan", *SERVES_ALL)
# Who may hand over to a later place, inside a function: each is one line of a method.
HANDS_OVER = {("plan.client", "audit.verify")}
FILES = sorted(FOLDER.rglob("*.py"))
# Lines of code in one module.
MOST_LINES = 300
HEAVY = ("torch", "scipy", "opacus", "matplotlib", "sklearn", "torchvision", "dp_accounting")


def imports(path: Path, top_level_only: bool) -> set[str]:
    """What a file imports, by full names; what only a type checker sees is left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{name.name}" for name in node.names}
    return found


def module_of(path: Path) -> str:
    """`accounting.pld` for fldp/accounting/pld.py, `accounting` for its __init__."""
    parts = path.relative_to(FOLDER).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_of(path): path for path in FILES}


def own_module(name: str) -> str | None:
    """The module of this package that an imported name stands in, or is."""
    inside = name.removeprefix("fldp").removeprefix(".")
    while inside and inside not in MODULES:
        inside = inside.rpartition(".")[0]
    return inside if name.split(".")[0] == "fldp" else None


def floor_of(module: str) -> str:
    return module.partition(".")[0]


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


def test_every_file_of_the_package_is_looked_at() -> None:
    assert len(FILES) > 60
    assert {floor_of(module) for module in MODULES} >= set(FLOORS)


@pytest.mark.slow
@pytest.mark.parametrize("module", [m for m in MODULES if floor_of(m) in (*FLOORS, *SERVES_ALL)])
def test_imports_point_to_earlier_floors(module: str) -> None:
    floor = floor_of(module)
    seen = SERVES_ALL if floor in SERVES_ALL else (*SERVES_ALL, *FLOORS[: FLOORS.index(floor) + 1])
    eager = imports(MODULES[module], top_level_only=True)
    for name in imports(MODULES[module], top_level_only=False):
        other = own_module(name)
        if not other or name == "fldp.__version__":
            continue
        hands_over = other == "plotting" or (module, other) in HANDS_OVER
        if hands_over:
            assert name not in eager, f"{module} hands over to {other}: import it inside a function"
        else:
            assert floor_of(other) in seen, f"{module} imports {other}"


@pytest.mark.slow
def test_no_module_waits_for_itself() -> None:
    graph: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        found = {own_module(name) for name in imports(path, top_level_only=True)}
        graph[module] = {other for other in found if other and "." in other}
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("module", [m for m in MODULES if floor_of(m) in TORCH_FREE])
def test_the_first_floors_load_numpy_only(module: str) -> None:
    names = imports(MODULES[module], top_level_only=True)
    assert not {name.split(".")[0] for name in names} & set(HEAVY)


def test_no_two_public_functions_or_classes_have_one_name() -> None:
    owners: dict[str, str] = {}
    for module, path in MODULES.items():
        if module.startswith("_"):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                other = owners.setdefault(node.name, module)
                assert other == module, f"{node.name} is in {other} and in {module}"


def test_every_module_has_its_tests() -> None:
    # What one question runs through is tested through the question.
    shared = {
        "engines": "stacked", "client": "plan", "questions": "accounting",
        "composition": "accounting", "search": "calibration", "opacus": "accounting",
        "gaussian_pairs": "pairs", "curve": "pld", "guide": "pld", "laws": "pld",
        "registry": "report",
    }  # fmt: skip
    here = Path(__file__).parent
    for module, path in MODULES.items():
        if path.stem != "__init__" and module != "__main__":
            name = path.stem.removeprefix("_")
            test = here / f"test_{shared.get(name, name)}.py"
            if floor_of(module) == "flower":
                # Where Flower is missing they are skipped.
                test = here / "flower" / f"test_{name}.py"
            assert test.exists(), module


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


@pytest.mark.slow
def test_every_floor_keeps_its_budget() -> None:
    """The budgets are those of the table in CONTRIBUTING.md."""
    text = (HERE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| `(\w+)/?`.*\| ([\d,]+) \|$", text, flags=re.MULTILINE)
    budgets = {name: int(lines.replace(",", "")) for name, lines in told}
    assert [name for name in budgets if name in FLOORS] == list(FLOORS)
    lines = {module: code_lines(path) for module, path in MODULES.items()}
    for floor in FLOORS:
        found = sum(n for module, n in lines.items() if floor_of(module) == floor)
        assert found <= budgets[floor], f"{floor} has {found} lines of code"
    assert max(lines.values()) <= MOST_LINES, lines


@pytest.mark.slow
def test_every_import_is_declared() -> None:
    distributions = {"sklearn": "scikit-learn", "dp_accounting": "dp-accounting"}
    extras = [text for texts in PROJECT["optional-dependencies"].values() for text in texts]
    names = {Requirement(text).name for text in [*PROJECT["dependencies"], *extras]}
    own = {"fldp", *sys.stdlib_module_names}
    for path in FILES:
        for name in {module.split(".")[0] for module in imports(path, top_level_only=False)} - own:
            assert distributions.get(name, name) in names, f"{path.name} imports {name}"


def test_the_version_is_one() -> None:
    citation = yaml.safe_load((HERE / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["dynamic"] == ["version"]  # read from the package when it is built
    assert fldp.__version__ == citation["version"]


@pytest.mark.slow
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
    code = {path.relative_to(HERE).as_posix() for path in FILES}
    assert files == code | {"fldp/py.typed"}
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
