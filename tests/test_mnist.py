"""MNIST, where FLDP_DATA has it: the same seeds give the same model, bit for bit."""

from __future__ import annotations

import pytest

import fldp
from benchmarks.mnist import run


@pytest.mark.slow
def test_the_same_seeds_give_the_same_model() -> None:
    try:
        fldp.datasets.mnist(download=False)
    except fldp.datasets.DatasetUnavailable:
        pytest.skip("MNIST is not in FLDP_DATA")
    one, other, third = (run("linear", rounds=2, seed=seed) for seed in (0, 0, 1))
    assert one["digest"] == other["digest"] != third["digest"]
    # With a seed the cohorts count as known: the plan's 8 holds only while the draws are secret.
    assert one["accounted"] <= 8.0 < one["epsilon"]
