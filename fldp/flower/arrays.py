"""Between Flower's records and tensors by name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

from flwr.app import Array, ArrayRecord, RecordDict
from torch import Tensor

from fldp.mechanism.updates import Layout, as_tensor

# Bytes of the header that numpy writes before an array's entries, at most.
_HEADER = 4096
# Bytes of an entry of a model, or of a reply, at most.
_WIDEST = 16


def parameters(arrays: ArrayRecord) -> dict[str, Tensor]:
    """A model as tensors by name, in float32 or float64; these are the arrays' own values.

    Parameters
    ----------
    arrays : ArrayRecord
        The global model.

    Returns
    -------
    dict of str to Tensor

    Raises
    ------
    ValueError
        For buffers and whatever else is not trained by gradients: no clip bounds what they hold.

    Examples
    --------
    >>> import numpy as np
    >>> parameters(ArrayRecord({"w": Array(np.zeros(2, np.float32))}))
    {'w': tensor([0., 0.])}
    """
    found = {}
    for name, array in arrays.items():
        value = array.numpy()
        if value.dtype not in ("float32", "float64"):
            raise ValueError(
                f"{name} is an array of {value.dtype}, a buffer or in half precision: send "
                "trainable parameters only, in float32"
            )
        found[name] = as_tensor(value)
    # Names that batch normalisation keeps its statistics under are refused there.
    Layout(found)
    return found


def record_of(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Tensors by name as Flower sends them.

    Parameters
    ----------
    tensors : mapping of str to Tensor
        On the CPU.

    Returns
    -------
    ArrayRecord

    Examples
    --------
    >>> import torch
    >>> record_of({"w": torch.ones(2)})["w"].numpy().tolist()
    [1.0, 1.0]
    """
    return ArrayRecord({name: Array(value.numpy()) for name, value in tensors.items()})


def update_in(content: RecordDict, model: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a reply adds to the model; empty for a reply of any other structure.

    An empty update is malformed for whoever adds it up: it counts as zero, and nothing is raised,
    because a round must not end by what a client sends, and nothing is warned of.

    Parameters
    ----------
    content : RecordDict
        Of a reply: one record of arrays, and whatever else.
    model : mapping of str to Tensor
        The model that was sent.

    Returns
    -------
    dict of str to Tensor

    Examples
    --------
    >>> import torch
    >>> reply = RecordDict({"arrays": record_of({"w": torch.ones(2)})})
    >>> update_in(reply, {"w": torch.zeros(2)})
    {'w': tensor([1., 1.])}
    >>> update_in(reply, {"w": torch.zeros(3)})
    {}
    """
    update = {}
    try:
        (record,) = content.array_records.values()
        # What numpy warns of, an old header or a number too large for double precision, would be
        # read in the run's log.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name, array in record.items():
                before = model[name]
                # Before anything is unpacked.
                if tuple(array.shape) != tuple(before.shape):
                    return {}
                if len(array.data) > _HEADER + _WIDEST * before.numel():
                    return {}
                update[name] = as_tensor(array.numpy(), before.shape) - before
    except Exception:  # whatever was sent, the round goes on
        return {}
    return update


def weight_in(content: RecordDict, key: str) -> float:
    """A client's own word on its weight; NaN, which makes its reply malformed, for none.

    Parameters
    ----------
    content : RecordDict
        Of a reply: one record of metrics, and whatever else.
    key : str
        The name of the weight among them.

    Returns
    -------
    float
    """
    try:
        (metrics,) = content.metric_records.values()
        return float(metrics[key])
    except Exception:  # as above
        return float("nan")
