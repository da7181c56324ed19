"""What clients minimise and what validation reports: a loss and a metric of a model's outputs.

A loss is called as torch's are, `loss(outputs, targets)`, and answers with the mean over a batch.
Clients are trained together in batches of unequal length, so that padding must not count: losses of
torch that are a mean over entries are taken apart, any other sees batches of one length.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fldp._checks import shown
from fldp.simulation.inputs import Records, call, leaves, made_up
from fldp.simulation.isolation import alone
from fldp.simulation.rehearsal import kept_by, random_state

Loss = Callable[[Any, Tensor], Tensor]
# torch's own name of what is no target at all, such as the padding of a sentence.
IGNORED = -100

# Losses that are a mean over entries, by torch's name of the function and of the module.
_MEANS = {
    "cross_entropy": "CrossEntropyLoss",
    "mse_loss": "MSELoss",
    "l1_loss": "L1Loss",
    "smooth_l1_loss": "SmoothL1Loss",
    "huber_loss": "HuberLoss",
    "binary_cross_entropy": "BCELoss",
    "binary_cross_entropy_with_logits": "BCEWithLogitsLoss",
    "soft_margin_loss": "SoftMarginLoss",
    "poisson_nll_loss": "PoissonNLLLoss",
}
_FUNCTIONS = {getattr(F, name): name for name in _MEANS}
_MODULES = {getattr(nn, module): name for name, module in _MEANS.items()}


def outputs(found: Any) -> Tensor:
    """The scores or predictions in whatever a model returned.

    Parameters
    ----------
    found : object
        A tensor; an object or a dict with `logits`; a tuple or list that begins with a tensor; a
        dict of one tensor.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> outputs({"logits": torch.ones(2), "hidden": torch.zeros(3)})
    tensor([1., 1.])
    """
    if isinstance(found, Tensor):
        return found
    inside = found
    if isinstance(found, Mapping):
        inside = found.get("logits")
        if inside is None and len(found) == 1:
            inside = next(iter(found.values()))
    elif hasattr(found, "logits"):
        inside = found.logits
    elif isinstance(found, tuple | list) and found:
        inside = found[0]
    if isinstance(inside, Tensor):
        return inside
    raise ValueError(
        f"the model returns a {type(found).__name__}: return a tensor, a tuple that begins with "
        "one, or a dict or an object with 'logits'"
    )


class Unfit(ValueError):
    """Model, loss and targets do not fit one another; the message says where."""


class Objective:
    """A loss and a metric.

    Parameters
    ----------
    loss : callable, optional
        `loss(outputs, targets)`, the mean over the records of a batch: a function of
        `torch.nn.functional`, a module, or your own. None: cross-entropy of whole labels, with the
        classes last, or second as torch has them; targets of -100 do not count.
    metric : callable, optional
        `metric(outputs, targets)`, a mean over records as well, for validation; or an object with
        `reset`, `update(outputs, targets)` and `compute`, as torchmetrics has them. None: the
        accuracy where the loss is cross-entropy of labels, else no metric.

    Raises
    ------
    ValueError
        For what cannot be called, and for a loss that is no mean.

    Examples
    --------
    >>> squared = Objective(F.mse_loss)
    >>> squared.mean(torch.ones(3, 1), torch.zeros(3))
    tensor(1.)
    """

    def __init__(self, loss: Loss | None = None, metric: Any = None) -> None:
        check_callable("loss", loss, "a function such as torch.nn.functional.mse_loss")
        keeps = all(hasattr(metric, name) for name in ("reset", "update", "compute"))
        if isinstance(metric, type) or not keeps:
            remedy = "a function of outputs and targets, or an object with reset, update, compute"
            check_callable("metric", metric, remedy)
        reduction = getattr(loss, "reduction", "mean")
        if reduction != "mean":
            raise Unfit(
                f"loss has reduction={reduction!r}: give one with reduction='mean', so that a "
                "client's learning rate does not depend on how many records it has"
            )
        self.loss = loss
        self.metric = metric
        self.kind = _kind(loss)
        # Of each entry by itself; None for a loss that is known as a whole only.
        self._entries = _entries(loss, self.kind)
        # The label that is none, and how much each of the others counts.
        self.ignored = IGNORED
        self._weights: Tensor | None = None
        if type(loss) is nn.CrossEntropyLoss:
            self.ignored = loss.ignore_index
            self._weights = loss.weight

    @property
    def pads(self) -> bool:
        """Whether padding can be left out of the loss: `padded` says how."""
        return self._entries is not None

    @property
    def classifies(self) -> bool:
        """Whether the loss is plain cross-entropy, as far as no target is ignored."""
        if type(self.loss) is nn.CrossEntropyLoss:
            return _counts_all(self.loss) and self.loss.label_smoothing == 0
        return self.loss is None or self.loss is F.cross_entropy

    def mean(self, found: Any, y: Tensor) -> Tensor:
        """The loss of a batch, a single number.

        Parameters
        ----------
        found : object
            What the model returned on n records.
        y : Tensor
            Their targets (n, ...).

        Returns
        -------
        Tensor
            Of shape ().

        Raises
        ------
        ValueError
            Where outputs and targets do not fit, and where the loss is no single number.
        """
        if self._entries is not None:
            out, y = self.fit(found, y)
            each = self._entries(out, y)
            if self._ignores(y):
                return _mean_of(each, self._counts(y))
            return each.mean()
        assert self.loss is not None
        loss = self.loss(*self.fit(found, y))
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            told = f"of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
            raise Unfit(f"loss gave {told}: give the mean over a batch, one number")
        return loss.reshape(())

    def padded(self, found: Any, y: Tensor, share: Tensor) -> Tensor:
        """The loss of the records that count: what `mean` is of these alone.

        Parameters
        ----------
        found : object
            What the model returned on B records.
        y : Tensor
            Their targets (B, ...).
        share : Tensor
            (B,): 1/n for each of n records, and 0 on padding.

        Returns
        -------
        Tensor
            Of shape ().
        """
        assert self._entries is not None
        out, y = self.fit(found, y)
        each = self._entries(out, y)
        if not self._ignores(y):
            return (each.reshape(len(share), -1).mean(1) * share).sum()
        inside = (share > 0).view(-1, *[1] * (y.ndim - 1))
        return _mean_of(each * inside, self._counts(y) * inside)

    def _ignores(self, y: Tensor) -> bool:
        """Whether there may be entries that are no part of the mean."""
        return self.kind == "cross_entropy" and not y.is_floating_point()

    def _counts(self, y: Tensor) -> Tensor:
        """How much each label counts in the mean: nothing, once, or as its class is weighted."""
        counted = y != self.ignored
        if self._weights is None:
            return counted
        return self._weights.to(y.device)[y * counted] * counted

    def alike(self, y: Tensor) -> bool:
        """Whether every record counts the same in the mean, whatever the others are.

        Parameters
        ----------
        y : Tensor
            Targets (n, ...).

        Returns
        -------
        bool
        """
        if not self.pads:
            return False
        if not self._ignores(y):
            return True
        return y.ndim == 1 and self._weights is None and not bool((y == self.ignored).any())

    def fit(self, found: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and targets as the loss takes them.

        A single output a record is a number a record; whole numbers are real ones where they are
        compared with real ones. Nothing is ever broadcast.

        Parameters
        ----------
        found : object
            What the model returned on n records.
        y : Tensor
            Their targets (n, ...).

        Returns
        -------
        (Tensor, Tensor)

        Raises
        ------
        ValueError
            Where they do not fit.
        """
        out = outputs(found)
        if self.kind == "cross_entropy":
            return self._classes(out, y)
        if out.ndim == y.ndim + 1 and out.shape[-1] == 1:
            out = out.squeeze(-1)
        elif y.ndim == out.ndim + 1 and y.shape[-1] == 1:
            y = y.squeeze(-1)
        if self.kind and out.shape != y.shape:
            raise Unfit(
                f"the model's outputs have shape {tuple(out.shape)} and the targets "
                f"{tuple(y.shape)}: {self.kind} compares them entry by entry"
            )
        if out.shape == y.shape:
            y = y.to(out.dtype)
        return out, y

    def _classes(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs with the classes second, as torch's cross-entropy has them, and labels."""
        if y.is_floating_point():
            if self.loss is not None and out.shape == y.shape:
                return out, y.to(out.dtype)
            raise Unfit(
                "the targets are real numbers: give loss=torch.nn.functional.mse_loss or another "
                "loss for them; for classes give whole numbers (y.long())"
            )
        second = out.ndim >= 2 and out.shape[:1] + out.shape[2:] == y.shape
        last = self.loss is None and out.ndim >= 2 and out.shape[:-1] == y.shape
        if second and last and out.ndim > 2:
            raise Unfit(
                f"outputs of shape {tuple(out.shape)} may have their classes second or last: give "
                "a loss that says which"
            )
        if last:
            return out.movedim(-1, 1), y
        if second:
            return out, y
        raise Unfit(
            f"the model's outputs have shape {tuple(out.shape)} and the labels {tuple(y.shape)}: "
            "cross-entropy wants scores for every class; give loss=... for another task "
            "(torch.nn.functional.binary_cross_entropy_with_logits for one output)"
        )

    def draws(self, found: Any, y: Tensor) -> bool:
        """Whether the loss draws random numbers; a ValueError where it keeps anything.

        Parameters
        ----------
        found : object
            What the model returned on made-up records.
        y : Tensor
            Made-up targets for them.

        Returns
        -------
        bool

        Raises
        ------
        ValueError
            For a loss that is another after a call, in an attribute or in what it gives: what one
            client leaves in it would reach the next.
        """
        if self.kind:
            return False
        assert self.loss is not None
        with alone(y.device) as start:
            before = kept_by(self.loss)
            start(0)
            drawn = random_state()
            first = self._tried(found, y).detach()
            draws = drawn != random_state()
            start(0)
            # Another batch in between: of the first record alone, seen twice.
            self._tried(outputs(found)[[0, 0]], y[[0, 0]])
            start(0)
            again = self._tried(found, y).detach()
            same = torch.equal(first, again) or bool(first.isnan() & again.isnan())
            if not same or kept_by(self.loss) != before:
                raise Unfit(
                    f"loss {shown(self.loss)} keeps something from one call to the next, which "
                    "would carry from one client to another: give a function of outputs and "
                    "targets alone, or train in a LocalFunction"
                )
        return draws

    def check(self, found: Any, y: Tensor, low: int | None, high: int | None) -> Tensor:
        """Try the objective on outputs of made-up records.

        Parameters
        ----------
        found : object
            What the model returned on made-up records.
        y : Tensor
            Made-up targets for them, of the population's shape and type.
        low, high : int or None
            The smallest and the largest label that there is, those ignored left out; None where
            that is not known.

        Returns
        -------
        Tensor
            The loss.

        Raises
        ------
        ValueError
            It says what does not fit, and what to give.
        """
        out, _ = self.fit(found, y)
        if self._ignores(y):
            _check_classes(out.shape[1], low, high)
        loss = self._tried(found, y)
        for label in (low, high):
            if label is not None:
                loss = self._tried(found, torch.full_like(y, label))
        self.draws(found, y)
        return loss

    def _tried(self, found: Any, y: Tensor) -> Tensor:
        """The loss; ValueError where there is none."""
        try:
            loss = self.mean(found, y)
        except Unfit:
            raise
        except Exception as error:
            raise Unfit(
                f"loss does not run on the model's outputs ({type(error).__name__}: {error})"
            ) from error
        if not loss.is_floating_point():
            raise Unfit(f"loss gave a {loss.dtype} number: there is nothing to differentiate")
        return loss

    def weight(self, y: Tensor) -> float:
        """How many records, or labels as they count, the mean over a batch is of.

        Parameters
        ----------
        y : Tensor
            Targets (n, ...).

        Returns
        -------
        float
        """
        if not self._ignores(y):
            return len(y)
        return float(self._counts(y).sum())

    @property
    def metric_name(self) -> str:
        """What `metric` is called; empty without one."""
        if self.metric is not None:
            return str(getattr(self.metric, "__name__", type(self.metric).__name__))
        return "accuracy" if self.kind == "cross_entropy" else ""

    @property
    def chosen_by(self) -> str:
        """By what a model is better than another; which way a metric of yours goes is not known."""
        return "accuracy" if self.metric_name == "accuracy" else "loss"


def try_out(
    module: nn.Module,
    like: Records,
    targets: Tensor,
    objective: Objective,
    labels: tuple[int | None, int | None],
) -> Tensor:
    """The loss of a copy of a model on made-up records, with gradients where it has any.

    Parameters
    ----------
    module : nn.Module
        A copy that may be run.
    like : Records
        The form in which it takes records.
    targets : Tensor
        The form of the targets.
    objective : Objective
        The loss.
    labels : (int or None, int or None)
        The smallest and the largest label.

    Returns
    -------
    Tensor

    Raises
    ------
    ValueError
        Where they do not fit.
    """
    device = leaves(like)[0].device
    y = targets.new_zeros(2, *targets.shape[1:]).to(device)
    # Two numbers of records: torch takes one record without its channels for a batch of them where
    # the number of records happens to be that of the channels.
    _run(module, like, 3)
    return objective.check(_run(module, like, 2), y, *labels)


def _run(module: nn.Module, like: Records, rows: int) -> Any:
    try:
        with torch.enable_grad():
            return call(module, made_up(like, rows=rows))
    except Exception as error:
        raise Unfit(
            f"the model does not run on {rows} records like these ({_told(like)}): "
            f"{type(error).__name__}: {error}"
        ) from error


def _told(like: Records) -> str:
    if isinstance(like, Tensor):
        return f"{tuple(like.shape[1:])} of {like.dtype}"
    names = like if isinstance(like, dict) else range(len(like))
    return ", ".join(f"{n}: {_told(part)}" for n, part in zip(names, leaves(like), strict=True))


def label_range(y: Tensor, ignored: int = IGNORED) -> tuple[int | None, int | None]:
    """The smallest and the largest whole number among labels, those ignored left out.

    Parameters
    ----------
    y : Tensor
        Targets of any shape; real ones have no labels.
    ignored : int
        What is no label.

    Returns
    -------
    (int or None, int or None)
    """
    if y.is_floating_point():
        return None, None
    counted = y[y != ignored]
    if not counted.numel():
        return None, None
    return int(counted.min()), int(counted.max())


def _mean_of(each: Tensor, counted: Tensor) -> Tensor:
    """The mean of entries that are 0 where they do not count; 0 of none, which moves nothing."""
    total = counted.sum()
    return each.sum() / torch.where(total > 0, total, 1)


def _check_classes(classes: int, low: int | None, high: int | None) -> None:
    """Unfit where there are labels beyond the classes, or a single class."""
    if classes < 2:
        raise Unfit(
            "the model has a single output, and cross-entropy of a single class is 0: give "
            "loss=torch.nn.functional.binary_cross_entropy_with_logits, or an output for every "
            "class"
        )
    if high is not None and high >= classes:
        raise Unfit(
            f"there is a label {high} and the model has {classes} outputs, for the labels 0 to "
            f"{classes - 1}: give it {high + 1}, or number the labels from 0"
        )
    if low is not None and low < 0:
        raise Unfit(f"there is a label {low}: labels are whole numbers from 0")


def check_callable(name: str, value: object, remedy: str) -> None:
    """ValueError unless `value` is None or can be called.

    Parameters
    ----------
    name : str
        Of the argument.
    value : object
        What was given.
    remedy : str
        What to give.

    Raises
    ------
    ValueError
    """
    if value is not None and not callable(value):
        raise ValueError(f"{name} is {value!r}: give {remedy}")
    if isinstance(value, type):
        raise ValueError(f"{name} is the class {value.__name__}: give an instance of it")


def _kind(loss: Loss | None) -> str:
    """The name of a loss of torch that is a mean over entries; empty for any other."""
    if loss is None:
        return "cross_entropy"
    if isinstance(loss, nn.Module):
        return _MODULES.get(type(loss), "")
    try:
        return _FUNCTIONS.get(loss, "")
    except TypeError:  # a callable object that cannot be looked up
        return ""


def _entries(loss: Loss | None, kind: str) -> Loss | None:
    """The loss of every entry; None where the mean over a batch is not theirs."""
    if not kind:
        return None
    if loss is None:
        return partial(F.cross_entropy, reduction="none")
    if not isinstance(loss, nn.Module):
        return partial(getattr(F, kind), reduction="none")
    apart = copy.copy(loss)
    apart.reduction = "none"  # type: ignore[assignment]
    return apart


def _counts_all(loss: nn.CrossEntropyLoss) -> bool:
    """Whether a cross-entropy counts every label once, and ignores what torch ignores."""
    return loss.weight is None and loss.ignore_index == IGNORED
