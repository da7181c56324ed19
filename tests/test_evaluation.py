"""simulation.evaluation: means over held-out records, in chunks of bounded memory."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

import fldp
from fldp.simulation import evaluation
from fldp.simulation.clients import Population
from fldp.simulation.evaluation import Exam, evaluate
from fldp.simulation.objective import Objective


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(50, 4, generator=g), torch.randint(3, (50,), generator=g)


@pytest.mark.parametrize("budget", [64 << 20, 300])
def test_chunks_change_nothing(
    data: tuple[Tensor, Tensor], budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_BUDGET", budget)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 3))
    accuracy, loss = evaluate(model, *data)
    assert model.training
    scores = model.eval()(data[0])
    assert accuracy == float((scores.argmax(1) == data[1]).double().mean())
    assert math.isclose(loss, float(F.cross_entropy(scores, data[1])), rel_tol=1e-5)


def test_ignored_words_do_not_count_in_any_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "_BUDGET", 1)
    x, y = torch.randint(5, (6, 3)), torch.randint(5, (6, 3))
    y[:4, 1:] = -100
    model = nn.Embedding(5, 5)
    accuracy, loss = evaluate(model, x, y)
    scores = model(x)
    assert math.isclose(loss, float(F.cross_entropy(scores.movedim(-1, 1), y)), rel_tol=1e-5)
    counted = y != -100
    assert accuracy == float((scores.argmax(-1) == y)[counted].double().mean())


def test_a_metric_is_a_mean_or_keeps_its_own_state(data: tuple[Tensor, Tensor]) -> None:
    def top_two(out: Tensor, y: Tensor) -> Tensor:
        return (out.topk(2).indices == y[:, None]).any(1).float().mean()

    class Right:
        def reset(self) -> None:
            self.right = self.all = 0

        def update(self, out: Tensor, y: Tensor) -> None:
            self.right += int((out.argmax(1) == y).sum())
            self.all += len(y)

        def compute(self) -> Tensor:
            return torch.tensor(self.right / self.all)

    model = nn.Linear(4, 3)
    found, _ = evaluate(model, *data, metric=top_two)
    assert math.isclose(found, float(top_two(model(data[0]), data[1])), rel_tol=1e-6)
    found, _ = evaluate(model, *data, metric=Right())
    assert math.isclose(found, evaluate(model, *data)[0], rel_tol=1e-6)


def test_without_a_metric_it_is_nan(data: tuple[Tensor, Tensor]) -> None:
    metric, loss = evaluate(nn.Linear(4, 1), data[0], data[0][:, 0], loss=F.mse_loss)
    assert math.isnan(metric)
    assert loss > 0


@pytest.mark.parametrize("kind", [
    lambda y: y.int(), lambda y: y.short(), lambda y: y.numpy(), lambda y: y.tolist(),
    lambda y: y.byte(), lambda y: y.numpy().astype(np.int32),
])  # fmt: skip
def test_labels_of_any_type(data: tuple[Tensor, Tensor], kind: Any) -> None:
    model = nn.Linear(4, 3)
    assert evaluate(model, data[0], kind(data[1])) == evaluate(model, *data)


@pytest.mark.parametrize("kind", [lambda x: x.double(), lambda x: x.numpy(), lambda x: x.tolist()])
def test_inputs_of_any_type(data: tuple[Tensor, Tensor], kind: Any) -> None:
    model = nn.Linear(4, 3)
    assert evaluate(model, kind(data[0]), data[1]) == evaluate(model, *data)


def test_a_dataset_and_a_population_are_read_as_they_are(data: tuple[Tensor, Tensor]) -> None:
    model = nn.Linear(4, 3)
    assert evaluate(model, TensorDataset(*data)) == evaluate(model, *data)
    assert evaluate(model, Population(*data, [range(50)])) == evaluate(model, *data)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((torch.zeros(3, 4),), "1 parts"),
        ((torch.zeros(0, 4), torch.zeros(0)), "0 inputs and 0 labels"),
        ((torch.zeros(3, 4), torch.zeros(2)), "3 inputs and 2 labels"),
        (TensorDataset(torch.zeros(0, 4), torch.zeros(0)), "empty"),
        (3, "validation is a int"),
        (iter([1]), "validation is a list_iterator"),
    ],
)
def test_what_is_no_held_out_data_is_refused(given: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Exam(given, Objective())


def test_what_does_not_fit_the_model_is_refused(data: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(ValueError, match="label 2 and the model has 2 outputs"):
        evaluate(nn.Linear(4, 2), *data)
    with pytest.raises(ValueError, match="does not run on 3 records"):
        evaluate(nn.Linear(5, 3), *data)


def people_and_plan() -> tuple[Population, fldp.PrivacyPlan]:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(200, 4, generator=g)
    people = fldp.clients.partition(x, x[:, 0], clients=40, seed=0)
    return people, fldp.calibrate(epsilon=8, delta=1e-2, rounds=4, clients=40, cohort=20)


def test_training_reports_loss_and_metric() -> None:
    def error(out: Tensor, y: Tensor) -> Tensor:
        return (out - y).abs().mean()

    people, plan = people_and_plan()
    history = fldp.train(nn.Linear(4, 1), people, plan, validation=(people.x, people.y),
                         loss=F.mse_loss, metric=error)  # fmt: skip
    assert history.measure == "error"
    assert len(history.metric) == len(history.loss) == 4
    assert history.accuracy == []
    assert history.loss[-1] < history.loss[0]
    assert "error" in history.to_pandas().columns
    assert history.to_dict()["measure"] == "error"


def test_what_is_found_on_clients_own_records_stays_private() -> None:
    people, plan = people_and_plan()
    history = fldp.train(nn.Linear(4, 1), people, plan, validation=people, loss=F.mse_loss)
    assert history.loss == history.metric == []
    assert len(history.private["loss"]) == 4
    assert "private" not in history.to_json()
    with pytest.raises(ValueError, match="patience"):
        fldp.train(nn.Linear(4, 1), people, plan, validation=people, loss=F.mse_loss, patience=2)


def test_patience_follows_the_loss_where_there_is_no_accuracy() -> None:
    people, plan = people_and_plan()
    history = fldp.train(nn.Linear(4, 1), people, plan, validation=(people.x, people.y),
                         loss=F.mse_loss, patience=4)  # fmt: skip
    assert history.best_round == 1 + int(np.argmin(history.loss))


PROGRAM = """
import resource, torch
from torch import nn
from fldp.simulation.evaluation import evaluate
model = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
                      nn.Flatten(), nn.Linear(64, 10))
x, y = torch.rand({}, 1, 28, 28), torch.zeros({}, dtype=torch.long)
evaluate(model, x, y)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_records() -> None:
    def peak(records: int) -> int:
        program = PROGRAM.format(records, records)
        return int(subprocess.check_output([sys.executable, "-c", program]))

    few, many = peak(200), peak(2000)
    of_records = 1800 * 28 * 28 * 4 / 1024
    # All at once the layers' outputs of 1,800 images more take 700 MB; in kB as Linux tells them.
    assert many - few < of_records + 150_000


class Kept:
    """A metric of torchmetrics' kind whose answer is given."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def reset(self) -> None: ...

    def update(self, out: Tensor, y: Tensor) -> None: ...

    def compute(self) -> Any:
        return self.answer


class Late(Dataset[Any]):
    """Fifty pairs, the last of which is odd."""

    def __init__(self, odd: Any) -> None:
        self.odd = odd

    def __len__(self) -> int:
        return 50

    def __getitem__(self, i: int) -> Any:
        x, y = torch.ones(4), 1
        if i < 49:
            return x, y
        return self.odd(x, y) if callable(self.odd) else self.odd


PAIR = (torch.ones(5, 4), torch.tensor([0, 1, 2, 0, 1]))


@pytest.mark.parametrize(
    "options",
    [
        {"metric": lambda out, y: out.argmax(1) == y},
        {"metric": lambda out, y: None},
        {"metric": lambda out, y: 1 / 0},
        {"metric": lambda out: 0.0},
        {"metric": Kept(torch.ones(2))},
        {"metric": Kept({"a": 1.0})},
        {"metric": dict},
        {"validation": Late(lambda x, y: (x, 3))},
        {"validation": Late(lambda x, y: (x, -5))},
        {"validation": Late(lambda x, y: (x[:2], y))},
        {"validation": Late(lambda x, y: 1 / 0)},
        {"validation": Late(None)},
        {"validation": {"x": PAIR[0], "y": PAIR[1]}},
        {"validation": "words"},
    ],
)
def test_an_exam_that_cannot_be_taken_is_refused_before_the_first_round(
    options: dict[str, Any], tmp_path: Path
) -> None:
    people = fldp.clients.Population(*PAIR, [[0, 1], [2, 3], [4]])
    plan = fldp.calibrate(epsilon=8.0, delta=0.1, rounds=2, clients=3, cohort=None)
    ledger = tmp_path / "ledger"
    given = {"validation": PAIR} | options
    with pytest.raises(ValueError, match=r"metric|validation|Dataset"):
        fldp.train(nn.Linear(4, 3), people, plan, clip=1.0, ledger=ledger, **given)
    assert not ledger.exists()
