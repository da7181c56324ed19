"""meta-pytorch/opacus#646, pytorch/pytorch#13350: every forward pass moves a module's buffers.

Spectral norm keeps its vectors u and v in buffers. Clients that train one after another on one
module would start where the client before them stopped: taking one client away would move the
others' contributions too, which no account covers.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import fldp
from fldp.mechanism.updates import flatten

NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "hook": nn.utils.spectral_norm,
    "parametrization": nn.utils.parametrizations.spectral_norm,
    "none": lambda layer: layer,
}


def gap(layer: Callable[[nn.Module], nn.Module], engine: str) -> float:
    """How far client 1's update moves when client 0 trains before it."""
    x, y = fldp.datasets.digits()
    population = fldp.clients.partition(x, y, clients=20, seed=0)
    torch.manual_seed(1)
    local = fldp.LocalSGD(lr=0.1, epochs=2, engine=engine)
    model = local.prepare(nn.Sequential(layer(nn.Linear(64, 32)), nn.ReLU(), nn.Linear(32, 10)))
    start = flatten(model)

    def updates(ids: list[int]) -> torch.Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.cat(list(local.updates(model, start, population, ids, generator)))

    return float((updates([1])[0] - updates([0, 1])[1]).norm())


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("norm", list(NORMS))
def test_an_update_is_the_same_whoever_else_trains_or_the_module_is_refused(
    norm: str, engine: str
) -> None:
    try:
        found = gap(NORMS[norm], engine)
    except ValueError:
        assert norm != "none"
        return
    assert found < 1e-6
