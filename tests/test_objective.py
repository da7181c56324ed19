"""simulation.objective: a loss is what torch computes, padding and ignored labels left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fldp.simulation.objective import IGNORED, Objective, label_range, outputs, try_out

LOSSES: list[Any] = [
    F.mse_loss,
    F.l1_loss,
    F.smooth_l1_loss,
    F.huber_loss,
    F.binary_cross_entropy_with_logits,
    F.poisson_nll_loss,
    F.soft_margin_loss,
    nn.MSELoss(),
    nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0])),
    nn.HuberLoss(delta=0.3),
]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("records", [1, 4])
def test_a_loss_of_torch_is_what_torch_computes(loss: Any, records: int) -> None:
    out = drawn(0, 5, 3)
    y = (drawn(1, 5, 3) > 0).double()
    objective = Objective(loss)
    assert objective.pads
    expected = loss(out[:records], y[:records])
    assert torch.allclose(objective.mean(out[:records], y[:records]), expected)
    share = torch.zeros(5, dtype=torch.float64)
    share[:records] = 1 / records
    assert torch.allclose(objective.padded(out, y, share), expected)


@pytest.mark.parametrize("given_loss", [None, F.cross_entropy, nn.CrossEntropyLoss()])
def test_cross_entropy_of_labels_and_of_words(given_loss: Any) -> None:
    objective = Objective(given_loss)
    assert objective.metric_name == "accuracy"
    assert objective.classifies
    out, y = drawn(0, 5, 3), torch.tensor([0, 1, 2, 1, IGNORED])
    assert torch.allclose(objective.mean(out, y), F.cross_entropy(out, y))
    share = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0])
    assert torch.allclose(objective.padded(out, y, share), F.cross_entropy(out[:3], y[:3]))
    words, following = drawn(1, 2, 7, 4), torch.randint(7, (2, 4))
    following[0, 2:] = IGNORED
    expected = F.cross_entropy(words, following)
    assert torch.allclose(objective.mean(words, following), expected)
    assert objective.weight(following) == 6


def test_without_a_loss_the_classes_may_be_last() -> None:
    objective = Objective()
    words, following = drawn(1, 2, 4, 7), torch.randint(7, (2, 4))
    expected = F.cross_entropy(words.movedim(-1, 1), following)
    assert torch.allclose(objective.mean(words, following), expected)
    with pytest.raises(ValueError, match="second or last"):
        objective.mean(drawn(0, 2, 4, 4), torch.zeros(2, 4, dtype=torch.long))


def test_nothing_counts_where_every_label_is_ignored() -> None:
    out = drawn(0, 2, 3).requires_grad_()
    loss = Objective().mean(out, torch.tensor([IGNORED, IGNORED]))
    (slope,) = torch.autograd.grad(loss, out)
    assert loss.item() == 0
    assert not slope.any()


@pytest.mark.parametrize(
    "loss",
    [
        nn.NLLLoss(),
        lambda out, y: F.cross_entropy(out, y) * 2,
    ],
)
def test_any_other_loss_is_called_on_whole_batches(loss: Any) -> None:
    objective = Objective(loss)
    assert not objective.pads
    out, y = drawn(0, 5, 3), torch.tensor([0, 1, 2, 1, 0])
    assert torch.equal(objective.mean(out, y), loss(out, y))


def test_a_number_a_record_is_never_broadcast() -> None:
    objective = Objective(F.mse_loss)
    out, y = drawn(0, 4, 1), drawn(1, 4)
    assert torch.allclose(objective.mean(out, y), F.mse_loss(out[:, 0], y))
    assert torch.allclose(objective.mean(out[:, 0], y[:, None]), F.mse_loss(out[:, 0], y))
    assert torch.allclose(objective.mean(out, torch.tensor([1, 2, 3, 4])), F.mse_loss(
        out[:, 0], torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)))  # fmt: skip
    with pytest.raises(ValueError, match="entry by entry"):
        objective.mean(drawn(0, 4, 2), y)


def test_scores_are_found_in_what_models_return() -> None:
    scores = torch.ones(2)
    for found in (scores, (scores, 1), [scores], {"logits": scores, "b": 1}, {"a": scores},
                  SimpleNamespace(logits=scores, loss=None)):  # fmt: skip
        assert outputs(found) is scores
    for strange in (None, (), {"a": 1, "b": 2}, SimpleNamespace(), [1, 2]):
        with pytest.raises(ValueError, match="the model returns a"):
            outputs(strange)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "mse"}, "loss is 'mse'"),
        ({"loss": nn.MSELoss}, "the class MSELoss"),
        ({"loss": nn.MSELoss(reduction="sum")}, "reduction='sum'"),
        ({"metric": 3}, "metric is 3"),
    ],
)
def test_what_is_no_loss_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Objective(**options)


LABELS = torch.zeros(0, dtype=torch.long)
NUMBERS = torch.zeros(0)


@pytest.mark.parametrize(
    ("model", "targets", "loss", "labels", "words"),
    [
        (nn.Linear(4, 3), LABELS, None, (0, 3), "label 3 and the model has 3 outputs"),
        (nn.Linear(4, 3), LABELS, None, (-1, 2), "label -1"),
        (nn.Linear(4, 1), LABELS, None, (0, 0), "single output"),
        (nn.Linear(4, 3), NUMBERS, None, (None, None), "real numbers"),
        (nn.Linear(4, 3), NUMBERS, F.mse_loss, (None, None), "entry by entry"),
        (nn.Linear(5, 3), LABELS, None, (0, 2), "does not run on 3 records"),
        (nn.Linear(4, 3), LABELS, lambda out, y: out.sum(1), (0, 2), r"of shape \(2,\)"),
        (nn.Linear(4, 3), LABELS, lambda out, y: 1.0, (0, 2), "loss gave 1.0"),
        (nn.Linear(4, 3), LABELS, lambda out, y: out.unknown, (0, 2), "loss does not run"),
        (nn.Linear(4, 3), LABELS, lambda out, y: out.argmax(), (0, 2), "nothing to differentiate"),
        (nn.Linear(4, 3), torch.zeros(0, 2, dtype=torch.long), None, (0, 2), "scores for every"),
    ],
)
def test_what_does_not_fit_is_refused(
    model: nn.Module, targets: Tensor, loss: Any, labels: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        try_out(model, torch.zeros(0, 4), targets, Objective(loss), labels)


def test_what_fits_passes() -> None:
    try_out(nn.Linear(4, 3), torch.zeros(0, 4), LABELS, Objective(), (0, 2))
    try_out(nn.Linear(4, 1), torch.zeros(0, 4), NUMBERS, Objective(F.mse_loss), (None, None))


def test_the_range_of_labels_leaves_out_those_ignored() -> None:
    assert label_range(torch.tensor([3, IGNORED, 1])) == (1, 3)
    assert label_range(torch.tensor([IGNORED])) == (None, None)
    assert label_range(torch.tensor([0.5])) == (None, None)


def test_of_a_metric_of_ones_own_nobody_knows_which_way_it_goes() -> None:
    def recall(out: Tensor, y: Tensor) -> float:
        return 0.0

    assert Objective(metric=recall).metric_name == "recall"
    assert Objective(metric=recall).chosen_by == "loss"
    assert Objective().chosen_by == "accuracy"
    assert Objective(F.mse_loss).metric_name == ""


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(0, 4), st.integers(0, 2**16))
def test_padding_never_counts(records: int, padding: int, seed: int) -> None:
    out = drawn(seed, records + padding, 3)
    labels = torch.randint(3, (records + padding,), generator=torch.Generator().manual_seed(seed))
    share = torch.zeros(records + padding, dtype=torch.float64)
    share[:records] = 1 / records
    padded = Objective().padded(out, labels, share)
    assert torch.allclose(padded, F.cross_entropy(out[:records], labels[:records]))


WEIGHTS = torch.tensor([0.1, 2.0, 0.3], dtype=torch.float64)


@pytest.mark.parametrize(
    "options",
    [
        {"weight": WEIGHTS},
        {"ignore_index": 1},
        {"ignore_index": 255},
        {"weight": WEIGHTS, "ignore_index": 0, "label_smoothing": 0.2},
    ],
)
def test_a_weighted_cross_entropy_is_torchs_in_any_chunks(options: dict[str, Any]) -> None:
    loss = nn.CrossEntropyLoss(**options)
    objective = Objective(loss)
    assert not objective.classifies
    out, y = drawn(0, 6, 3), torch.tensor([0, 1, 2, 1, 0, 2])
    if objective.ignored > 2:
        y[1] = objective.ignored
    assert torch.allclose(objective.mean(out, y), loss(out, y))
    share = torch.tensor([1 / 3] * 3 + [0.0] * 3)
    assert torch.allclose(objective.padded(out, y, share), loss(out[:3], y[:3]))
    parts = [(out[:2], y[:2]), (out[2:], y[2:])]
    weights = [objective.weight(part) for _, part in parts]
    whole = sum(float(objective.mean(*p)) * w for p, w in zip(parts, weights, strict=True))
    assert whole / sum(weights) == pytest.approx(float(loss(out, y)))
    # One record's count divides what another adds: alone they are as they are.
    assert not objective.alike(y)
    assert try_out(nn.Linear(4, 3).double(), torch.zeros(0, 4).double(), LABELS, objective, (0, 2))


class Running(nn.Module):
    """It takes a running mean off, as losses that centre do."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, out: Tensor, y: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * out.detach().mean(0)
        return F.cross_entropy(out - self.mean, y)


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, out: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return F.cross_entropy(out, y)


def remembering() -> Any:
    seen = [1.0]

    def loss(out: Tensor, y: Tensor) -> Tensor:
        found = F.cross_entropy(out, y)
        seen.append(float(found.detach()))
        return found * seen[-2]

    return loss


@pytest.mark.parametrize("loss", [Running(), Counting(), remembering()])
def test_a_loss_that_carries_from_client_to_client_is_refused(loss: Any) -> None:
    with pytest.raises(ValueError, match="from one client to another"):
        try_out(nn.Linear(4, 3), torch.zeros(0, 4), LABELS, Objective(loss), (0, 2))


def test_whether_a_loss_draws_is_found_out_and_leaves_no_trace() -> None:
    out, y = drawn(0, 2, 3), torch.tensor([0, 1])
    before = torch.get_rng_state()
    noisy = Objective(lambda out, y: F.cross_entropy(F.dropout(out, 0.5), y))
    assert noisy.draws(out, y)
    assert not Objective(lambda out, y: F.cross_entropy(out, y)).draws(out, y)
    assert torch.equal(torch.get_rng_state(), before)
