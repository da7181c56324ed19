"""Gradients of single records by Opacus: which layers have them, and whether they are right.

DP-SGD bounds what one record adds to a step. That holds only if row i of Opacus' gradients is the
gradient of record i and of no other. Opacus computes rows layer by layer, from what goes into a
layer and what comes back to it; hooks, operations in place, a batch that is not the first dimension
or records that are computed with one another make them wrong, often silently.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from fldp.simulation.isolation import Template, alone
from fldp.simulation.objective import Objective, outputs
from fldp.simulation.rehearsal import holdings

# The mean loss of a model on those of some made-up records that are numbered.
Loss = Callable[[nn.Module, list[int]], Tensor]
# Layers whose kernels Opacus cannot see into, and what it has instead.
_REPLACED = {
    nn.LSTM: "opacus.layers.DPLSTM",
    nn.GRU: "opacus.layers.DPGRU",
    nn.RNN: "opacus.layers.DPRNN",
    nn.MultiheadAttention: "opacus.layers.DPMultiheadAttention",
}
_WIDE = (torch.float32, torch.float64)
# Made-up records that are tried together: more than there are to a pair that might be swapped.
RECORDS = 3
# Of a parameter's largest gradient: rounding is far below, a wrong row far above.
_SLACK = 1e-2
# Of the model's largest gradient: a gradient that is 0 in theory is rounding alone.
_ROUNDING = 1e-4
# Of another library's message; the rest is seldom about the model.
_SHOWN = 100


def check_layers(model: nn.Module) -> None:
    """Refuse, before anything is run, trained layers that Opacus cannot take apart.

    Parameters
    ----------
    model : nn.Module
        What is to be trained.

    Raises
    ------
    ValueError
        It names the first such layer and its replacement.
    """
    for name, module in model.named_modules():
        trained = [p for p in module.parameters() if p.requires_grad]
        kind = type(module)
        for layer, replacement in _REPLACED.items():
            if trained and isinstance(module, layer):
                raise ValueError(
                    f"layer {name!r} is of type {kind.__name__}, for which Opacus has no gradients "
                    f"of single records: use {replacement} (opacus.validators.ModuleValidator.fix("
                    "model) replaces LSTM, GRU and attention for you), or freeze it"
                )
        if hasattr(module, "_orig_mod"):
            raise ValueError(
                f"layer {name!r} is compiled, which hides its layers from Opacus: give the module "
                "that it was compiled from (its _orig_mod)"
            )
        if trained and getattr(module, "padding_idx", None) is not None:
            raise ValueError(
                f"layer {name!r} has padding_idx={module.padding_idx}, which Opacus' gradients do "
                "not leave out: set padding_idx to None (noise moves that row in any case)"
            )
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype not in _WIDE:
            raise ValueError(
                f"parameter {name!r} is of {parameter.dtype}: sums of clipped gradients are rounded"
                " too coarsely there for any noise; call model.float() first, or freeze it"
            )


def wrapped(model: nn.Module) -> GradSampleModule:
    """`model` under Opacus' hooks; torch's own layers no longer work in place, which hooks forbid.

    Parameters
    ----------
    model : nn.Module
        A copy of its own: it is changed.

    Returns
    -------
    GradSampleModule
    """
    for module in model.modules():
        own = type(module).__module__.startswith("torch.nn.modules.")
        if own and getattr(module, "inplace", False):
            module.inplace = False  # type: ignore[assignment]
    # Not strict: it refuses frozen layers for their buffers. `check_rows` says what is wrong.
    return GradSampleModule(model, strict=False)


def mean_of_each(objective: Objective, found: Any, y: Tensor) -> Tensor:
    """The mean of the losses that single records have by themselves.

    A loss of a whole batch may divide by what its records share, such as the count of labels that
    are not ignored: then one record scales the gradient of another, and removing it moves both.

    Parameters
    ----------
    objective : Objective
        The loss.
    found : object
        What the model returned on n records.
    y : Tensor
        Their targets (n, ...).

    Returns
    -------
    Tensor
        Of shape ().
    """
    if objective.alike(y):
        return objective.mean(found, y)
    out = outputs(found)
    singles = [objective.mean(out[i : i + 1], y[i : i + 1]) for i in range(len(y))]
    return torch.stack(singles).mean()


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch's warning on Opacus' hooks, at every first layer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook", UserWarning)
        yield


# Opacus keeps `grad_sample` on a parameter, which torch's type does not know.
def settled(trained: list[Any], count: int) -> bool:
    """Whether, after a backward pass, every parameter has a row for each record.

    A parameter that no record reached gets rows of zeros: its noise is due all the same.

    Parameters
    ----------
    trained : list of nn.Parameter
        What is trained.
    count : int
        Records of the batch.

    Returns
    -------
    bool
        False where a layer saw some of the records only, or ran twice and counted once.
    """
    for parameter in trained:
        rows = parameter.grad_sample
        if rows is None and not _reached(parameter):
            parameter.grad_sample = parameter.new_zeros(count, *parameter.shape)
        elif not isinstance(rows, Tensor) or len(rows) != count:
            return False
    return True


def _reached(parameter: nn.Parameter) -> bool:
    if parameter.grad is None:
        return False
    return bool(parameter.grad.to_dense().any())


def check_rows(template: Template, loss: Loss, device: torch.device) -> None:
    """Compare Opacus' rows with the gradients of each made-up record by itself.

    Values are compared without dropout; where a model draws random numbers otherwise, only the form
    of the rows is checked. The model's own weights are used, so that nothing depends on the data.

    Parameters
    ----------
    template : Template
        The model.
    loss : callable
        `loss(model, records)`: the mean loss on those of `RECORDS` made-up records.
    device : torch.device
        Where the model is.

    Raises
    ------
    ValueError
        It names the layer whose rows fail or are wrong.
    """
    _check_still(template, loss, device)
    everyone = list(range(RECORDS))
    with alone(device) as start, quiet():
        singles = [_gradients(template, loss, [i], start, seed=0) for i in everyone]
        again = _gradients(template, loss, [0], start, seed=1)
        start(0)
        try:
            _rows(template.fresh(), loss, everyone)
            rows = _rows(_calm(template), loss, everyone)
        except Exception as error:
            raise ValueError(
                f"Opacus cannot compute gradients of single records in "
                f"{_culprit(template, loss)} ({_told(error)}): hold its parameters in layers of "
                "torch.nn, without operations in place, and apart from dropout and buffers, or "
                "freeze it"
            ) from error
    drawn = not all(torch.equal(singles[0][name], again[name]) for name in again)
    largest = max(float(part.abs().max()) for each in singles for part in each.values())
    for name, found in rows.items():
        right = torch.stack([each[name] for each in singles])
        if not drawn and not _close(found, right, largest * _ROUNDING):
            raise ValueError(
                f"Opacus' gradients of single records for parameter {name!r} are not those of each "
                "record by itself: hold it in a layer of torch.nn whose batch is the first "
                "dimension, without hooks and without what computes records with one another, or "
                "freeze it"
            )


def _check_still(template: Template, loss: Loss, device: torch.device) -> None:
    """Refuse a model that does not run on one record, or in which a record leaves something."""
    model = template.fresh()
    before = holdings(model)
    with alone(device) as start:
        start(0)
        try:
            loss(model, [0]).backward()
        except Exception as error:
            raise ValueError(
                f"the model does not run on one made-up record by itself ({_told(error)}): make it "
                "run on a batch of one, as DP-SGD draws them now and then"
            ) from error
    after = holdings(model)
    moved = [name for name in before | after if before.get(name) != after.get(name)]
    # `holdings` leaves out what trained weights are; only a step may move them.
    for (name, was), now in zip(template.model.named_parameters(), model.parameters(), strict=True):
        if not torch.equal(was, now):
            moved.append(name)
    if moved:
        raise ValueError(
            f"a forward or backward pass moves {moved[0]!r}: what a record leaves there reaches "
            "later steps without clip and noise; keep such state (running statistics, max_norm, "
            "stored activations) out of the model"
        )


def _close(found: Tensor, right: Tensor, least: float) -> bool:
    slack = _SLACK * float(right.abs().max()) + least
    return bool(torch.allclose(found, right, 0.0, slack, equal_nan=True))


def _calm(template: Template) -> nn.Module:
    """A copy whose dropout is off."""
    model = template.fresh()
    for module in model.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.p = 0.0
    return model


def _gradients(
    template: Template, loss: Loss, records: list[int], start: Callable[[int], None], seed: int
) -> dict[str, Tensor]:
    """By plain torch, from random numbers of `seed`."""
    model = _calm(template)
    start(seed)
    loss(model, records).backward()
    found = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            found[name] = torch.zeros_like(p) if p.grad is None else p.grad.to_dense()
    return found


def _rows(model: nn.Module, loss: Loss, records: list[int]) -> dict[str, Tensor]:
    """By Opacus, a row for each record; `model` is changed."""
    trained: dict[str, Any] = {n: p for n, p in model.named_parameters() if p.requires_grad}
    loss(wrapped(model), records).backward()
    if not settled(list(trained.values()), len(records)):
        raise ValueError("rows and records differ in number")
    return {name: parameter.grad_sample for name, parameter in trained.items()}


def _culprit(template: Template, loss: Loss) -> str:
    """The first layer that Opacus fails on when it is trained alone, in words."""
    for name, module in template.model.named_modules():
        if not any(p.requires_grad for p in module.parameters(recurse=False)):
            continue
        model = template.fresh().requires_grad_(False)
        for parameter in model.get_submodule(name).parameters(recurse=False):
            parameter.requires_grad_(True)
        try:
            _rows(model, loss, list(range(RECORDS)))
        except Exception:
            return f"layer {name!r}, of type {type(module).__name__}"
    return f"a model of type {type(template.model).__name__}"


def _told(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {first[:_SHOWN]}"
