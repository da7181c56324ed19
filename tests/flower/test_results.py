"""The faults of Flower's wrappers are those of the installed version, and each is measured."""

from __future__ import annotations

import importlib.metadata
import logging
from dataclasses import asdict
from types import SimpleNamespace

import pytest

pytest.importorskip("flwr.serverapp.exception", reason="Flower is not here: make flower")

from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping as Fixed
from flwr.serverapp.strategy import FedAvgM
from flwr.supercore.privacy_accounting import (
    NeighboringRelation,
    PrivacyConfig,
    SamplingMethod,
)

from benchmarks import common, flower, flower_faults

STORED = common.read(common.RESULTS / "flower_faults.json")
installed = pytest.mark.skipif(
    STORED["versions"]["flwr"] != importlib.metadata.version("flwr"),
    reason="another Flower than the stored one: python -m benchmarks flower_faults",
)


@installed
@pytest.mark.slow
@pytest.mark.parametrize("stored", STORED["faults"], ids=lambda one: one["name"])
def test_a_fault_is_what_is_stored(stored, monkeypatch) -> None:
    monkeypatch.setattr(logging.getLogger("flwr"), "disabled", True)
    flower_faults.seed()
    found = asdict(flower_faults.FAULTS[stored["name"]]())
    assert found["there"] == stored["there"]
    assert found["kind"] == stored["kind"]
    # Noise from a seed; sums in single precision differ between machines.
    assert found["numbers"] == pytest.approx(stored["numbers"], rel=1e-3)


@pytest.mark.parametrize("module", [flower, flower_faults], ids=lambda one: one.__name__)
def test_the_shared_arguments_are_taken(module, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["benchmark", "--help"])
    with pytest.raises(SystemExit, match="0"):
        module.main()
    said = capsys.readouterr().out
    assert "--output" in said
    assert "--no-write" in said


def test_flower_itself_accounts_for_no_momentum() -> None:
    # What flower.json says of the wrapper's ε.
    config = PrivacyConfig(
        1e-3, 480, NeighboringRelation.ADD_OR_REMOVE_ONE, SamplingMethod.NO_AMPLIFICATION
    )
    with pytest.raises(ValueError, match=r"FedAvg\.aggregate_train"):
        Fixed(FedAvgM(), 3.0, 1.0, 120, accountant=SimpleNamespace(config=config))
