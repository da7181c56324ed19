"""What a model calls while clients train: the masks are the clients' own, the rest is torch's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import vmap

from fldp.simulation.interception import Interception
from fldp.simulation.keyed import Masks

CPU = torch.device("cpu")


def alone(seed: int = 3) -> Interception:
    return Interception(Masks([seed], CPU))


def test_dropout_keeps_what_the_masks_say() -> None:
    x = torch.randn(4, 5)
    kept = Masks([3], CPU).keep(1, (4, 5), 0.25)[0]
    with alone():
        torch.testing.assert_close(F.dropout(x, 0.25), x * kept / 0.75)
        assert F.dropout(x, 0.25, training=False) is not None
        assert bool((F.dropout(x, 1.0) == 0).all())
        with pytest.raises(ValueError, match="dropout probability"):
            F.dropout(x, 1.5)
    given = x.clone()
    with alone():
        assert F.dropout(given, 0.25, inplace=True) is given
    torch.testing.assert_close(given, x * kept / 0.75)


@pytest.mark.parametrize(
    ("layer", "shape", "channels"),
    [
        (nn.Dropout1d(0.5), (50, 40, 3), 2),
        (nn.Dropout1d(0.5), (2000, 3), 1),
        (nn.Dropout2d(0.5), (50, 40, 2, 3), 2),
        (nn.Dropout3d(0.5), (50, 40, 2, 2, 2), 2),
        (nn.Dropout3d(0.5), (2000, 2, 2, 2), 1),
        (nn.FeatureAlphaDropout(0.5), (50, 40, 2, 3), 2),
    ],
    ids=str,
)
def test_channels_are_dropped_whole(
    layer: nn.Module, shape: tuple[int, ...], channels: int
) -> None:
    with alone():
        found = layer(torch.ones(shape)).reshape(*shape[:channels], -1)
    assert bool((found == found[..., :1]).all())
    values, counts = found[..., 0].unique(return_counts=True)
    assert len(values) == 2
    assert abs(int(counts[0]) - 1000) < 4 * math.sqrt(500)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    with alone():
        found = F.alpha_dropout(torch.randn(400, 500, dtype=torch.float64), 0.3, training=True)
    assert abs(float(found.mean())) < 0.02
    assert abs(float(found.var()) - 1) < 0.02


def test_nothing_is_drawn_from_torch_and_only_dropout_counts_as_replaced() -> None:
    before = torch.get_rng_state()
    lstm = nn.LSTM(3, 4, 2, dropout=0.5)
    heads = nn.MultiheadAttention(4, 2, dropout=0.5)
    x = torch.randn(2, 3, 3)
    before = torch.get_rng_state()
    with alone() as mode:
        lstm(x)
        heads(*[torch.ones(2, 3, 4)] * 3)
        F.scaled_dot_product_attention(*[torch.ones(1, 2, 3, 4)] * 3, dropout_p=0.5)
    assert bool((torch.get_rng_state() == before).all())
    assert mode.replaced == {"dropout"}
    with alone() as mode:
        nn.Linear(3, 3)(x)
        nn.LSTM(3, 4, 2)(x)
    assert not mode.replaced


def test_packed_sequences_drop_between_layers() -> None:
    lstm = nn.LSTM(3, 4, 2, dropout=0.5)
    packed = nn.utils.rnn.pack_sequence([torch.randn(3, 3), torch.randn(2, 3)])
    with alone():
        first = lstm(packed)[0].data
    with alone():
        again = lstm(packed)[0].data
    with alone(4):
        other = lstm(packed)[0].data
    assert bool((first == again).all())
    assert not bool((first == other).all())


def test_a_model_that_calls_torch_func_itself_is_not_batched_twice() -> None:
    layer = nn.Linear(3, 2)

    def inside(x: Tensor, anchor: Tensor) -> Tensor:
        with Interception(Masks([1, 2], CPU), anchor):
            return vmap(lambda row: layer(F.dropout(row, 0.5)))(x)

    with pytest.raises(RuntimeError, match=r"torch\.func"):
        vmap(inside)(torch.ones(2, 4, 3), torch.arange(2))


def test_the_dropout_of_a_constant_is_a_clients_own() -> None:
    masks = Masks([1, 2], CPU)

    def inside(anchor: Tensor) -> Tensor:
        with Interception(masks, anchor):
            return F.dropout(torch.ones(50), 0.5)

    first, second = vmap(inside)(torch.arange(2))
    assert not bool((first == second).all())
