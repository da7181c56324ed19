"""What the operator sets: the plan, and where its account is kept."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.serverapp.strategy import FedAvg
from stand_in import Nodes, ones, plan, start
from test_nodes import key

from fldp.flower import Private, from_environment
from fldp.flower.deployment import absolute


@pytest.fixture
def operator(tmp_path, monkeypatch):
    (tmp_path / "plan.json").write_text(plan().to_json(), encoding="utf-8")
    monkeypatch.setenv("FLDP_PLAN", str(tmp_path / "plan.json"))
    monkeypatch.setenv("FLDP_LEDGER", str(tmp_path / "ledger.jsonl"))
    for name in ("FLDP_CHECKPOINT", "FLDP_ROSTER"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_an_app_takes_the_operators_plan_and_paths(tmp_path, operator) -> None:
    operator.setenv("FLDP_CHECKPOINT", str(tmp_path / "run.pt"))
    strategy = Private(FedAvg(), clip=1.0, **from_environment())
    strategy.start(Nodes(range(40), ones), start())
    assert strategy.plan == plan()
    assert (tmp_path / "ledger.jsonl").exists()
    assert (tmp_path / "run.pt").exists()


@pytest.mark.parametrize("name", ["FLDP_PLAN", "FLDP_LEDGER"])
def test_what_is_not_set_is_named(operator, name) -> None:
    operator.delenv(name)
    with pytest.raises(ValueError, match=f"{name} is not set"):
        from_environment()
    operator.setenv(name, "here.json")
    with pytest.raises(ValueError, match=f"{name} is 'here.json': give an absolute path"):
        from_environment()


def test_a_file_without_a_plan_is_named(tmp_path, operator) -> None:
    (tmp_path / "plan.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="plan"):
        from_environment()
    operator.setenv("FLDP_PLAN", str(tmp_path / "none.json"))
    with pytest.raises(ValueError, match=r"none\.json, which cannot be read"):
        from_environment()


def test_the_roster_is_a_file_of_keys(tmp_path, operator) -> None:
    assert "roster" not in from_environment()
    keys = [key("ssh").decode() + " node" for _ in range(2)]
    path = tmp_path / "roster"
    path.write_text("# clients\n\n" + "\n".join(keys), encoding="utf-8")
    operator.setenv("FLDP_ROSTER", str(path))
    assert from_environment()["roster"] == keys
    strategy = Private(FedAvg(), clip=1.0, **from_environment())
    assert len(strategy.roster) == 2
    with pytest.raises(ValueError, match="shows no key of the roster"):
        strategy.start(Nodes(range(2), ones), start())


def test_a_roster_that_is_not_there_is_not_left_out(tmp_path, operator) -> None:
    """Without one everybody may come."""
    operator.setenv("FLDP_ROSTER", "")
    with pytest.raises(ValueError, match="FLDP_ROSTER is not set"):
        from_environment()
    operator.setenv("FLDP_ROSTER", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"none, which cannot be read: No such file"):
        from_environment()
    (tmp_path / "bytes").write_bytes(b"\xff")
    operator.setenv("FLDP_ROSTER", str(tmp_path / "bytes"))
    with pytest.raises(ValueError, match="bytes, which cannot be read: it is no text"):
        from_environment()


@pytest.mark.parametrize("path", ["x", Path("a/b"), 3, None, b"/x"])
def test_only_an_absolute_path_means_one_file(path) -> None:
    with pytest.raises(ValueError, match="ledger is"):
        absolute("ledger", path)
    assert absolute("ledger", "/x") == Path("/x")


def test_without_flower_the_extra_is_named() -> None:
    code = "import sys; sys.modules['flwr'] = None; import fldp.flower"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert re.search(r"^ImportError: fldp.flower needs .*fldp\[flower\]", done.stderr, re.M)
