"""Recurrent layers of many clients: outputs, states and gradients are torch's for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fldp.simulation import recurrent

KINDS = [
    (nn.LSTM, {}, "lstm"),
    (nn.LSTM, {"proj_size": 2}, "lstm"),
    (nn.GRU, {}, "gru"),
    (nn.RNN, {}, "rnn_tanh"),
    (nn.RNN, {"nonlinearity": "relu"}, "rnn_relu"),
]


@pytest.mark.parametrize("small", [True, False], ids=["unrolled", "each"])
@pytest.mark.parametrize("first", [True, False], ids=["records first", "time first"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("both", [True, False], ids=["both ways", "one way"])
@pytest.mark.parametrize(("layer", "options", "name"), KINDS)
def test_a_layer_is_torchs(
    layer: type[nn.RNNBase], options: dict[str, Any], name: str, both: bool, bias: bool,
    first: bool, small: bool, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if not small:
        monkeypatch.setattr(recurrent, "_SMALL_STATE", 0)
    torch.manual_seed(0)
    c, t, b, features, width = 3, 4, 2, 5, 6
    models = [
        layer(features, width, batch_first=first, bidirectional=both, bias=bias, **options).double()
        for _ in range(c)
    ]
    directions = 2 if both else 1
    x = torch.randn(c, *((b, t) if first else (t, b)), features).double().requires_grad_()
    hidden = torch.randn(c, directions, b, options.get("proj_size", width)).double()
    cells = torch.randn(c, directions, b, width).double()
    states = [part.requires_grad_() for part in ((hidden, cells) if name == "lstm" else (hidden,))]
    weights = [
        torch.stack([p.detach() for p in parts]).requires_grad_()
        for parts in zip(*(m.parameters() for m in models), strict=True)
    ]

    def told(parts: Any) -> Tensor:
        return torch.cat([(part.double() ** 2).sum().view(1) for part in parts]).sum()

    given = tuple(states) if name == "lstm" else states[0]
    settings = (bias, 1, 0.0, True, both, first)
    call = recurrent.Call(getattr(torch, name), (x, given, weights, *settings))
    found = call.together(x, *states, *weights)
    slopes = torch.autograd.grad(told(found), [x, *states, *weights])
    for i, model in enumerate(models):
        own = [part[i].detach().requires_grad_() for part in (x, *states)]
        out, last = model(own[0], tuple(own[1:]) if name == "lstm" else own[1])
        expected = (out, *(last if name == "lstm" else (last,)))
        torch.testing.assert_close([part[i] for part in found], list(expected))
        exact = torch.autograd.grad(told(expected), [*own, *model.parameters()])
        torch.testing.assert_close([part[i] for part in slopes], list(exact))
