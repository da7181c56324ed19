"""Seven broken runs and one more, each found first; healthy runs are not accused."""

from __future__ import annotations

import copy
import json
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import fldp
from fldp.simulation import causes, symptoms
from fldp.simulation.diagnosis import RunDiagnosis, diagnose

pytestmark = pytest.mark.filterwarnings("ignore::fldp.mechanism.release.RoundWarning")
SEEDS = range(3)
STEADY: dict[str, Any] = {}
TOO_FEW = "too few clients for this noise"
# Name -> what is changed in a run that works, and the cause that has to stand first.
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "server's rate too small": ({"rate": 0.01}, "the server's learning rate is too small"),
    "clients' rate too large": (
        {"hidden": 32, "lr": 50.0, "epochs": 5},
        "the steps lead nowhere: the clients' learning rate is too large",
    ),
    "clip far too large": ({"clip": 100.0}, "the clip norm is too large"),
    "clip far too small": ({"clip": 0.003}, "the clip norm is too small"),
    "model too large": (
        {"hidden": 1024, "epsilon": 1.0, "rounds": 30},
        "the model is too large for this population",
    ),
    "too few clients": ({"clients": 20, "cohort": 20, "epsilon": 2.0}, TOO_FEW),
    "too few rounds": ({"rounds": 5}, "it stopped while it was still learning"),
    "malformed": ({"is_spoilt": True, "rounds": 20}, "contributions are malformed"),
    "server's rate too large": (
        {"hidden": 32, "rate": 20.0},
        "the server's learning rate is too large",
    ),
}
HEALTHY: dict[str, dict[str, Any]] = {
    "linear": STEADY,
    "two labels a client": {"scheme": "shards", "clip": 0.5},
    "a hidden layer": {"hidden": 32},
    "a loose clip": {"clip": 5.0},
}
# What only private figures tell.
HIDDEN = ("clip far too large", "malformed")


@cache
def digits() -> Any:
    return fldp.datasets.digits_split()


def model(hidden: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    if not hidden:
        return nn.Linear(64, 10)
    return nn.Sequential(nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


def overflows(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> None:
    """A step of training, and a fault of the program for two labels in three."""
    cross_entropy(model(x), y).backward()
    for weight in model.parameters():
        assert weight.grad is not None
        weight.data -= 2.0 * weight.grad
        if y[0] < 7:
            weight.data *= torch.inf


@cache
def ran(
    seed: int,
    *,
    hidden: int = 0,
    clients: int = 480,
    cohort: int = 120,
    rounds: int = 60,
    epsilon: float = 8.0,
    clip: float = 1.0,
    lr: float = 2.0,
    epochs: int = 1,
    rate: float = 1.0,
    scheme: str = "iid",
    is_spoilt: bool = False,
    noise: bool = True,
) -> fldp.History:
    plan = fldp.calibrate(
        epsilon=epsilon, delta=1e-3, rounds=rounds, clients=clients, cohort=cohort
    )
    local: Any = fldp.LocalSGD(lr=lr, epochs=epochs)
    if is_spoilt:
        local = fldp.LocalFunction(overflows)
    given: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed)}
    if not noise:
        given = {"rounds": rounds, "cohort": cohort}
    return fldp.train(
        model(hidden, seed),
        fldp.clients.partition(*digits()[0], clients=clients, scheme=scheme, seed=seed),
        plan if noise else None,
        clip=clip,
        local=local,
        server=fldp.FedAvgM(lr=rate, momentum=0.5),
        validation=digits()[1],
        seed=seed,
        **given,
    )


def first(name: str, seed: int) -> str:
    found = diagnose(ran(seed, **BROKEN[name][0])).findings
    return found[0].cause if found else ""


def mistakes() -> list[str]:
    """The runs that are not told right: a broken one by another cause, a healthy one accused."""
    wrong = [name for name in BROKEN if any(first(name, s) != BROKEN[name][1] for s in SEEDS)]
    for name, changed in HEALTHY.items():
        if any(diagnose(ran(seed, **changed)).findings for seed in SEEDS):
            wrong.append(name)
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_run_is_told_first(name: str, seed: int) -> None:
    assert first(name, seed) == BROKEN[name][1]


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_is_not_accused(name: str, seed: int) -> None:
    found = diagnose(ran(seed, **HEALTHY[name]))
    assert found.findings == ()
    assert str(found).startswith("Nothing found among: ")
    assert "Not looked at: " in str(found)
    assert ran(seed, **HEALTHY[name]).accuracy[-1] > 0.8


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "missed"),
    [
        ("DROWNED", 0.1, "too few clients"),
        ("FAINT", 100.0, "linear"),
        ("SMALLEST_MODEL", 10**6, "model too large"),
        ("SMALLEST_MODEL", 1, "too few clients"),
        ("MOST_LOST", 0.95, "malformed"),
        ("NOBODY", 0.5, "a loose clip"),
        ("NOBODY", -1.0, "clip far too large"),
        ("SLOW", 1000.0, "server's rate too small"),
        ("SLOW", 1.0, "too few rounds"),
        ("STRAIGHT", 1.5, "server's rate too small"),
        ("SHORT_REACH", 1000.0, "server's rate too small"),
        ("SHORT_REACH", 0.0, "clip far too small"),
        ("OVERSHOT", 1.5, "linear"),
        ("UNFINISHED", 0.9, "too few rounds"),
        ("UNFINISHED", -1.0, "linear"),
    ],
)
def test_another_threshold_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float, missed: str
) -> None:
    monkeypatch.setattr(symptoms, name, value)
    assert missed in mistakes()


@pytest.mark.slow
@pytest.mark.parametrize("name", BROKEN)
def test_released_figures_alone_are_enough_or_it_says_that_they_are_not(name: str) -> None:
    for seed in SEEDS:
        history = ran(seed, **BROKEN[name][0])
        found = diagnose(history, private=False)
        assert not found.reads_private
        assert not any(finding.is_private for finding in found.findings)
        assert any("clipped share" in part for part in found.missing)
        if name in HIDDEN:
            assert BROKEN[name][1] not in [finding.cause for finding in found.findings]
        else:
            assert found.findings[0].cause.startswith(BROKEN[name][1])


@pytest.mark.slow
def test_a_copy_has_no_private_figures() -> None:
    history = ran(0, **BROKEN["clip far too large"][0])
    copied = copy.deepcopy(history)
    assert diagnose(copied) == diagnose(history, private=False)
    assert "Read from released figures alone." in str(diagnose(copied))
    assert "no ε covers" in str(diagnose(history))


@pytest.mark.slow
def test_private_figures_change_nothing_of_what_may_be_published() -> None:
    """The published diagnosis is one function of the released figures, whatever the others are."""
    history = copy.deepcopy(ran(0))
    before = diagnose(history, private=False)
    history.private = {
        name: [value] * history.rounds
        for name, value in {
            "cohort": 1.0,
            "malformed": 1.0,
            "zero": 1.0,
            "clipped_fraction": 0.0,
            "loss": 9.0,
            "metric": 0.0,
        }.items()
    }
    assert diagnose(history, private=False) == before
    assert diagnose(history) != before


@pytest.mark.slow
def test_without_noise_tells_whether_it_is_the_noise() -> None:
    few = {"clients": 20, "cohort": 20, "epsilon": 2.0}
    found = diagnose(ran(0, **few), without_noise=ran(0, **few, noise=False))
    assert [finding.cause for finding in found.findings] == [TOO_FEW, "the noise costs accuracy"]
    assert found.reads_private
    slow = diagnose(ran(0, rate=0.01), without_noise=ran(0, rate=0.01, noise=False))
    assert slow.findings[0].cause == "it does not learn without noise either"
    assert diagnose(ran(0), without_noise=ran(0, noise=False)).findings == ()


def short(**given: Any) -> fldp.History:
    """Two rounds of twelve clients."""
    x, y = digits()[0]
    few = fldp.clients.partition(x[:36], y[:36], clients=12, seed=0)
    plan = fldp.calibrate(epsilon=8.0, delta=1e-2, rounds=2, clients=12)
    return fldp.train(model(0, 0), few, plan, **given)


def test_without_validation_it_does_not_speak_of_rates() -> None:
    found = diagnose(short())
    assert "learning rates" not in found.looked
    assert any("validation" in part for part in found.missing)


def test_a_short_curve_tells_nothing() -> None:
    found = diagnose(short(validation=digits()[1]))
    assert any("fewer than 4 points" in part for part in found.missing)


def test_an_exam_of_clients_own_records_is_read_as_private() -> None:
    own = fldp.clients.partition(*digits()[1], clients=5, seed=0)
    history = short(validation=own)
    assert diagnose(history).reads_private
    assert any("validation" in part for part in diagnose(history, private=False).missing)


def test_what_no_plan_covers_is_never_called_public() -> None:
    x, y = digits()[0]
    few = fldp.clients.partition(x[:36], y[:36], clients=12, seed=0)
    free = fldp.train(model(0, 0), few, None, rounds=2, cohort=12)
    assert diagnose(free).reads_private
    with pytest.raises(ValueError, match="no ε covers a run without a plan"):
        diagnose(free, private=False)
    with pytest.raises(ValueError, match="no ε covers"):
        diagnose(short(), without_noise=free, private=False)


@pytest.mark.parametrize("wrong", [None, 3, {"accuracy": [0.1]}])
def test_what_is_no_history_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="what fldp\\.train returned"):
        diagnose(wrong)
    with pytest.raises(ValueError, match="without_noise is"):
        diagnose(short(), without_noise=wrong or "none")


def test_it_is_plain_data_and_reads_on_a_narrow_page() -> None:
    found = diagnose(short(validation=digits()[1]))
    assert json.loads(json.dumps(found.to_dict()))["reads_private"] is True
    assert max(map(len, str(found).splitlines())) <= 76
    assert found._repr_html_().startswith("<pre>")
    assert isinstance(found, RunDiagnosis)


def test_likely_causes_come_first() -> None:
    history = short()
    found = diagnose(history).findings
    grades = [finding.is_likely for finding in found]
    assert grades == sorted(grades, reverse=True)
    assert all(isinstance(finding, causes.Reason) for finding in found)
