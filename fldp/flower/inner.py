"""What a strategy of Flower must be to step on one noisy mean, and what of its step is kept."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg, FedXgbBagging, FedXgbCyclic, QFedAvg
from torch import Tensor

from fldp._checks import shown


def check_strategy(strategy: object) -> None:
    """ValueError for what does not step on a mean: a wrapper for privacy among others.

    Parameters
    ----------
    strategy : object
        What a caller gave.
    """
    if isinstance(strategy, (QFedAvg, FedXgbBagging, FedXgbCyclic)):
        raise ValueError(
            f"strategy is {type(strategy).__name__}, which needs clients' losses or trees, and a "
            "noisy mean has neither: give FedAvg or one that steps on a mean"
        )
    if not isinstance(strategy, FedAvg):
        raise ValueError(
            f"strategy is {shown(strategy)}: give FedAvg or one that extends it, and no other "
            "wrapper for privacy"
        )


def no_metrics(contents: list[RecordDict], key: str) -> MetricRecord:
    """Of clients' metrics there are none; an app's own function would miss theirs.

    Parameters
    ----------
    contents : list of RecordDict
        The one reply.
    key : str
        The name of the weight.

    Returns
    -------
    MetricRecord
    """
    return MetricRecord()


def kept(stepped: Mapping[str, Tensor], model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A strategy's step in the precision of the model before it, which its optimisers widen.

    Parameters
    ----------
    stepped, model : mapping of str to Tensor
        After the step, and before it.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    ValueError
        For other names or shapes: that is another model.

    Examples
    --------
    >>> import torch
    >>> kept({"w": torch.ones(2, dtype=torch.float64)}, {"w": torch.zeros(2)})
    {'w': tensor([1., 1.])}
    """
    before = {name: tuple(value.shape) for name, value in model.items()}
    after = {name: tuple(value.shape) for name, value in stepped.items()}
    if after != before:
        raise ValueError(
            f"the inner strategy made a model of {after} of one of {before}: give a strategy that "
            "keeps names and shapes"
        )
    return {name: stepped[name].to(value.dtype) for name, value in model.items()}
