"""Loss and metric of a model on held-out records, in chunks of bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fldp._checks import shown
from fldp.simulation.clients import Population
from fldp.simulation.inputs import (
    Records,
    accepted,
    activations,
    as_records,
    as_targets,
    call,
    cast,
    collated,
    count,
    form,
    leaves,
    length,
    take,
)
from fldp.simulation.objective import Loss, Objective, label_range, try_out

# Bytes of all layers' outputs that a chunk of records may take.
_BUDGET = 64 << 20
# Beyond so many records to a chunk nothing is gained.
_MOST = 4096
_BYTES = 4  # of a float32
# Held-out data: inputs and targets, clients' own records, or a torch Dataset of pairs.
Validation = tuple[Any, Any] | Population | Any


class Score(NamedTuple):
    """What a model reached: `metric` is NaN where there is none."""

    metric: float
    loss: float

    def merit(self, objective: Objective) -> float:
        """What a model is chosen by: its accuracy where that is the metric, else less loss."""
        return self.metric if objective.chosen_by == "accuracy" else -self.loss


class Exam:
    """Held-out records, checked once and evaluated as often as a model has changed.

    Parameters
    ----------
    data : (x, y), Population or Dataset
        x and y as a `Population` takes them; a Dataset has pairs (x, y) and a length, and is read
        a chunk at a time.
    objective : Objective
        Loss and metric.

    Raises
    ------
    ValueError
        For what is empty, of different length, or no numbers.
    """

    def __init__(self, data: Validation, objective: Objective) -> None:
        self.objective = objective
        # Clients' own records: what is found on them is as private as they are.
        self.private = isinstance(data, Population)
        # Whether records are read only when they are needed, so that nobody has looked at all.
        self.reads = False
        self._read: Callable[[slice], tuple[Records, Tensor]]
        if isinstance(data, Population):
            x, y = data.x, data.y
        elif isinstance(data, tuple | list):
            x, y = _pair(data)
        else:
            self._of_dataset(data)
            return
        self.length = len(y)
        self._read = lambda rows: (take(x, rows), y[rows])
        self.parts: list[Tensor] = [*leaves(x), y]

    def _of_dataset(self, data: Any) -> None:
        size = length(data)
        if size is None or not hasattr(data, "__getitem__") or isinstance(data, str | Mapping):
            raise ValueError(
                f"validation is a {type(data).__name__}: give (x, y), a Population, or a Dataset "
                "with a length"
            )
        self.length = size
        self.reads = True
        if self.length == 0:
            raise ValueError("validation is empty: give records, or leave it out")

        def read(rows: slice) -> tuple[Records, Tensor]:
            try:
                items = [data[i] for i in range(self.length)[rows]]
            except Exception as error:
                told = f"{type(error).__name__}: {error}"
                raise ValueError(f"validation's Dataset cannot be read ({told})") from error
            return collated(items)

        self._read = read
        # Its first record stands for all: a large one is not read as a whole.
        x, y = read(slice(1))
        self.parts = [*leaves(x), y]

    def form(self) -> tuple[Records, Tensor]:
        """Inputs and targets without rows: their structure, shapes and types."""
        x, y = self._read(slice(1))
        return form(x), y[:0]

    def labels(self) -> tuple[int | None, int | None]:
        """The smallest and the largest label, those ignored left out; None where unknown."""
        return label_range(self.parts[-1], self.objective.ignored)

    def score(self, model: nn.Module, like: Records) -> Score:
        """Metric and loss of a model; it is left in the mode it was in.

        Parameters
        ----------
        model : nn.Module
            On the device of `like`.
        like : Records
            The form in which it takes records.

        Returns
        -------
        Score
            Means over the records.
        """
        training = model.training
        model.eval()
        device = leaves(like)[0].device
        measure = _measure(self.objective)
        total = 0.0
        counted = 0.0
        try:
            with torch.no_grad():
                for rows in self._chunks(model, like):
                    x, y = self._read(rows)
                    y = y.to(device)
                    with _told_as_ours(rows):
                        found = call(model, cast(x, like))
                        weight = self.objective.weight(y)
                        total += float(self.objective.mean(found, y)) * weight
                    counted += weight
                    measure.add(*self.objective.fit(found, y))
        finally:
            model.train(training)
        return Score(measure.result(), total / counted if counted else 0.0)

    def rehearse(self, model: nn.Module, like: Records) -> None:
        """Take the exam once where records or metric are a stranger's: it shows what is wrong.

        Parameters
        ----------
        model : nn.Module
            A copy that may be run.
        like : Records
            The form in which it takes records.

        Raises
        ------
        ValueError
            Where records cannot be read, or do not fit model, loss or metric.
        """
        if self.reads or self.objective.metric is not None:
            self.score(model, like)

    def _chunks(self, model: nn.Module, like: Records) -> Iterator[slice]:
        fitting = _BUDGET // (_BYTES * activations(model, like))
        wide = max(1, min(fitting, _MOST, self.length))
        for start in range(0, self.length, wide):
            yield slice(start, min(start + wide, self.length))


def evaluate(
    model: nn.Module,
    x: Any,
    y: Any = None,
    *,
    loss: Loss | None = None,
    metric: Any = None,
) -> tuple[float, float]:
    """Metric and mean loss of a model on held-out records, in bounded memory.

    Parameters
    ----------
    model : nn.Module
        In the end it is in the mode it was in.
    x, y
        Inputs (n, ...) and targets (n, ...); or x alone: a `Population`, or a torch Dataset.
    loss, metric : callable, optional
        As for `train`. None: cross-entropy and accuracy.

    Returns
    -------
    (float, float)
        The metric, NaN where there is none, and the loss. As public, or as private, as the records.

    Raises
    ------
    ValueError
        Where records, model and loss do not fit.

    Examples
    --------
    >>> import fldp
    >>> x, y = fldp.datasets.digits()
    >>> accuracy, loss = evaluate(nn.Linear(64, 10), x, y)
    >>> 0 <= accuracy <= 1
    True
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"model is {shown(model)}: give a torch nn.Module")
    objective = Objective(loss, metric)
    exam = Exam(x if y is None else (x, y), objective)
    weights = next((p.detach() for p in model.parameters()), torch.zeros(0))
    x_form, y_form = exam.form()
    training = model.training
    model.eval()
    try:
        like = accepted(model, x_form, weights)
        try_out(model, like, y_form, objective, exam.labels())
    finally:
        model.train(training)
    return exam.score(model, like)


@contextmanager
def _told_as_ours(rows: slice) -> Iterator[None]:
    """A block in which what model and loss raise on held-out records becomes a ValueError."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(
            f"model or loss failed on records {rows.start} to {rows.stop - 1} of validation "
            f"({type(error).__name__}: {error}): labels must be among the model's outputs, and "
            "words among its vocabulary"
        ) from error


def _number(ask: Callable[[], Any]) -> float:
    """What a metric answers, as a number; ValueError where it does not."""
    try:
        return float(ask())
    except Exception as error:
        raise ValueError(
            f"metric gives no number ({type(error).__name__}: {error}): it is called as "
            "metric(outputs, targets), or has reset(), update(outputs, targets) and compute()"
        ) from error


def _pair(data: Sequence[Any]) -> tuple[Records, Tensor]:
    if len(data) != 2:
        raise ValueError(f"validation has {len(data)} parts: give (x, y)")
    x = as_records(data[0], "validation's inputs")
    y = as_targets(data[1], "validation's targets")
    if count(x) != len(y) or len(y) == 0:
        raise ValueError(f"validation has {count(x)} inputs and {len(y)} labels: give as many")
    return x, y


class _Mean:
    """A metric that is a mean over records, put together from chunks."""

    def __init__(self, metric: Callable[[Tensor, Tensor], Any]) -> None:
        self._metric = metric
        self._sum = 0.0
        self._count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        self._sum += _number(lambda: self._metric(out, y)) * len(y)
        self._count += len(y)

    def result(self) -> float:
        return self._sum / self._count


class _Accuracy:
    """The share of labels that have the largest score; those ignored do not count."""

    def __init__(self, ignored: int) -> None:
        self._ignored = ignored
        self._right = 0
        self._count = 0

    def add(self, out: Tensor, y: Tensor) -> None:
        if y.is_floating_point():
            y = y.argmax(1)
        counted = y != self._ignored
        self._right += int(((out.argmax(1) == y) & counted).sum())
        self._count += int(counted.sum())

    def result(self) -> float:
        return self._right / max(1, self._count)


class _Kept:
    """A metric that keeps its own state, as those of torchmetrics do."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric
        self._asked(metric.reset)

    def add(self, out: Tensor, y: Tensor) -> None:
        self._asked(self._metric.update, out, y)

    def _asked(self, step: Callable[..., Any], *given: Tensor) -> None:
        """A step that answers nothing."""

        def ask() -> float:
            step(*given)
            return 0.0

        _number(ask)

    def result(self) -> float:
        return _number(self._metric.compute)


class _Nothing:
    """No metric."""

    def add(self, out: Tensor, y: Tensor) -> None:
        """Nothing to add."""

    def result(self) -> float:
        return math.nan


def _measure(objective: Objective) -> _Mean | _Accuracy | _Kept | _Nothing:
    if hasattr(objective.metric, "update"):
        return _Kept(objective.metric)
    if objective.metric is not None:
        return _Mean(objective.metric)
    return _Accuracy(objective.ignored) if objective.metric_name else _Nothing()
