"""Flat vectors, and the intake of updates in every form that training code produces."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fldp.mechanism.updates import Layout, as_tensor, flatten, load_, shapes, unpack, views


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_flatten_and_load_are_inverse() -> None:
    source, target = model(), model()
    with torch.no_grad():
        for p in target.parameters():
            p.zero_()
    load_(target, flatten(source))
    assert torch.equal(flatten(source), flatten(target))


def test_flatten_copies() -> None:
    net = model()
    flatten(net).zero_()
    assert flatten(net).abs().sum() > 0


def test_frozen_parameters_and_buffers_are_left_out() -> None:
    net = model()
    net[0].weight.requires_grad_(False)
    names = [name for name, _, _ in shapes(net)]
    assert "0.weight" not in names
    assert not any("running" in name for name in names)
    assert flatten(net).numel() == sum(size for _, _, size in shapes(net))


def test_a_tied_parameter_counts_once() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    assert flatten(net).numel() == 9


def test_views_keep_leading_dimensions_and_share_memory() -> None:
    net = model()
    stack = torch.zeros(5, flatten(net).numel())
    parts = views(stack, shapes(net))
    assert parts["0.weight"].shape == (5, 4, 3)
    parts["2.bias"].fill_(1.0)
    assert float(stack.sum()) == 10.0


def test_views_of_scalars_and_wrong_sizes() -> None:
    layout = (("s", torch.Size([]), 1), ("e", torch.Size([0, 2]), 0), ("v", torch.Size([2]), 2))
    parts = views(torch.arange(3.0), layout)
    assert parts["s"].shape == ()
    assert parts["e"].shape == (0, 2)
    with pytest.raises(ValueError, match="has 4 entries, the model needs 3"):
        views(torch.zeros(4), layout)


def test_a_model_without_trainable_parameters_is_refused() -> None:
    with pytest.raises(ValueError, match="no trainable parameter"):
        flatten(nn.Flatten())


ODD_TENSORS = [
    torch.tensor(5.0),
    torch.zeros(0),
    torch.tensor([1, 2]),
    torch.tensor([True, False]),
    torch.ones(3, dtype=torch.float16),
    torch.ones(3, dtype=torch.bfloat16),
    torch.ones(3, dtype=torch.float64),
    torch.eye(3).to_sparse(),
    torch.eye(3).to_sparse_csr(),
    torch.ones(4, 3).t(),
    torch.ones(1).expand(7),
    torch.ones(6)[::2],
    torch.ones(3, requires_grad=True),
    nn.Parameter(torch.ones(2)),
    np.float32(3.0),
    np.ones((2, 2), order="F"),
    np.arange(3)[::-1],
    np.broadcast_to(np.float16(1), (3,)),
    2,
    True,
    [1.0, 2.0],
]


@pytest.mark.parametrize("value", ODD_TENSORS, ids=lambda v: type(v).__name__)
def test_every_real_tensor_comes_in_as_dense_float(value: Any) -> None:
    tensor = as_tensor(value)
    assert tensor.dtype in (torch.float32, torch.float64)
    assert tensor.layout == torch.strided
    assert not tensor.requires_grad
    dense = value.to_dense() if isinstance(value, torch.Tensor) and value.is_sparse else value
    if isinstance(dense, torch.Tensor) and dense.layout == torch.strided:
        assert torch.equal(tensor.double(), dense.detach().double())


@pytest.mark.parametrize(
    "value",
    ["text", None, object(), {"a": 1}, torch.ones(2, dtype=torch.complex64), [[1], [1, 2]],
     np.array(["a"]), torch.ones(2, device="meta"), b"bytes", np.array([None])],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_what_is_not_a_real_tensor_raises_value_error(value: Any) -> None:
    with pytest.raises(ValueError, match="not a numeric tensor"):
        as_tensor(value)


def test_a_pair_of_modules_is_their_difference() -> None:
    before = model()
    after = copy.deepcopy(before)
    with torch.no_grad():
        for p in after.parameters():
            p.add_(0.5)
    names, leaves, _ = unpack((before, after))
    assert names == [n for n, _ in before.named_parameters()]
    assert all(torch.allclose(leaf, torch.tensor(0.5)) for leaf in leaves)
    with pytest.raises(ValueError, match="differ in structure"):
        unpack((before, nn.Linear(1, 1)))


def test_buffers_are_named_when_someone_sends_them() -> None:
    net = model()
    with pytest.raises(ValueError, match=r"1\.running_mean.*are buffers"):
        Layout(net.state_dict())
    layout = Layout(net)
    with pytest.raises(ValueError, match=r"1\.num_batches_tracked.*are buffers"):
        layout.rows(net.state_dict(), torch.zeros(layout.total))


def test_a_buffer_with_any_name_is_recognised_from_the_module() -> None:
    net = nn.Linear(2, 2)
    net.register_buffer("step_count", torch.zeros(()))
    with pytest.raises(ValueError, match=r"step_count.*are buffers"):
        Layout(net).rows(net.state_dict(), torch.zeros(6))


def test_the_first_tensor_that_differs_is_named() -> None:
    layout = Layout({"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(4)})
    with pytest.raises(ValueError, match=r"'b': it has shape \(5,\), expected \(3,\)"):
        layout.rows(
            {"a": torch.ones(2), "b": torch.ones(5), "c": torch.ones(1)}, torch.zeros(layout.total)
        )
    with pytest.raises(ValueError, match=r"'b' of shape .* is missing"):
        layout.rows({"a": torch.ones(2), "c": torch.ones(4)}, torch.zeros(layout.total))
    with pytest.raises(ValueError, match="'d' is not part"):
        layout.rows(
            {"a": torch.ones(2), "b": torch.ones(3), "c": torch.ones(4), "d": 1},
            torch.zeros(layout.total),
        )
    with pytest.raises(ValueError, match=r"\[2\].*is missing"):
        Layout([torch.ones(1)] * 3).rows([torch.ones(1)] * 2, torch.zeros(3))


def test_names_match_by_key_and_not_by_order() -> None:
    layout = Layout({"a": torch.zeros(1), "b": torch.zeros(1)})
    rows = layout.rows(
        {"b": torch.tensor([2.0]), "a": torch.tensor([1.0])}, torch.zeros(layout.total)
    )
    assert rows.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("like", [[], {}, torch.zeros(0), [torch.zeros(0, 3)]])
def test_an_empty_structure_is_refused(like: Any) -> None:
    with pytest.raises((ValueError, IndexError), match=r"no entries"):
        Layout(like)


def test_restore_keeps_the_structure() -> None:
    like = {"w": torch.ones(2, 2), "s": torch.tensor(1.0), "e": torch.zeros(0)}
    back = Layout(like).restore(torch.arange(5.0))
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in like.items()}


class Allocated(AssertionError):
    """Something was made dense that should have been refused by its shape."""


def bombs() -> list[Any]:
    """Messages of a few bytes that say that they are large."""
    one = torch.ones(1)
    sparse = torch.sparse_coo_tensor([[0], [0]], [1.0], (10**6, 10**6), check_invariants=False)
    inner = [0.0] * 1000
    return [
        sparse,
        torch.sparse_coo_tensor([[0]], [1.0], (10**12,), check_invariants=False),
        torch.sparse_csr_tensor(torch.zeros(3, dtype=torch.int64), [], [], (2, 10**12)),
        one.expand(10**9),
        one.half().expand(10**12),
        one.bool().expand(10**6, 10**6),
        np.broadcast_to(np.float16(1), (10**12,)),
        np.broadcast_to(np.int64(1), (3, 10**12)),
        [[inner] * 1000] * 1000,
        range(10**13),
    ]


@pytest.mark.parametrize("which", range(len(bombs())))
@pytest.mark.parametrize("place", ["alone", "in a dict", "in a list"])
def test_r04_a_shape_is_compared_before_anything_is_allocated(
    which: int, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise Allocated

    bomb = bombs()[which]
    for owner, name in ((torch.Tensor, "to_dense"), (torch.Tensor, "float"), (np, "require"),
                        (np, "asarray"), (torch.Tensor, "contiguous")):  # fmt: skip
        monkeypatch.setattr(owner, name, refuse)
    like: Any = torch.zeros(2, 3)
    update = bomb
    if place == "in a dict":
        like, update = {"w": torch.zeros(2, 3)}, {"w": bomb}
    elif place == "in a list":
        like, update = [torch.zeros(2, 3)], [bomb]
    layout = Layout(like)
    with pytest.raises(ValueError, match=r"expected|missing|not part") as found:
        layout.rows(update, torch.zeros(6), one=True)
    assert "Allocated" not in repr(found.value.__cause__)


def test_r04_a_matrix_of_one_sender_is_refused_before_it_is_converted() -> None:
    layout = Layout(torch.zeros(6))
    with pytest.raises(ValueError, match="one client sent 1000000000 updates"):
        layout.rows(torch.ones(1, 1).half().expand(10**9, 6), torch.zeros(6), one=True)
    assert layout.rows(torch.ones(1, 6), torch.zeros(6), one=True).shape == (1, 6)


@pytest.mark.parametrize("layout", ["coo", "coo hybrid", "negative", "csr", "csc", "bsr"])
def test_r04_sparse_indices_out_of_range_are_refused(layout: str) -> None:
    """Without a check they write outside of the dense tensor, or kill the process."""
    far = 10**9
    shape, like = (4, 4), torch.zeros(4, 4)
    options = {"check_invariants": False}
    if layout.startswith("coo") or layout == "negative":
        place = -far if layout == "negative" else far
        values = torch.ones(1, 4) if "hybrid" in layout else torch.ones(1)
        indices = [[place]] if "hybrid" in layout else [[place], [1]]
        bad = torch.sparse_coo_tensor(indices, values, shape, **options)
    elif layout == "bsr":
        bad = torch.sparse_bsr_tensor([0, 1, 1], [far], torch.ones(1, 2, 2), shape, **options)
    else:
        make = torch.sparse_csr_tensor if layout == "csr" else torch.sparse_csc_tensor
        bad = make([0, 1, 1, 1, 1], [far], [1.0], shape, **options)
    with pytest.raises(ValueError, match="not a numeric tensor"):
        as_tensor(bad, (4, 4))
    with pytest.raises(ValueError, match="not a numeric tensor"):
        Layout(like).rows(bad, torch.zeros(16))


def test_r04_more_stored_entries_than_values_are_refused() -> None:
    many = torch.zeros(1, 1, dtype=torch.int64).expand(1, 10**10)
    bad = torch.sparse_coo_tensor(many, torch.ones(1).expand(10**10), (5,), check_invariants=False)
    with pytest.raises(ValueError, match="10000000000 stored entries for 5 values"):
        as_tensor(bad, (5,))


def test_sparse_updates_of_the_right_shape_still_come_in() -> None:
    dense = torch.tensor([[0.0, 2.0], [0.0, -1.0]])
    forms = [dense.to_sparse(), dense.to_sparse_csr(), dense.to_sparse_csc(), dense.to_sparse_bsr((1, 1))]  # fmt: skip # noqa: E501
    for form in forms:
        assert torch.equal(as_tensor(form, (2, 2)), dense)
    twice = torch.sparse_coo_tensor([[1, 1]], [1.0, 2.0], (3,))
    assert as_tensor(twice, (3,)).tolist() == [0.0, 3.0, 0.0]


def test_rows_of_a_matrix_are_contiguous_in_memory() -> None:
    layout = Layout(torch.zeros(5))
    for matrix in (
        torch.ones(5, 3).t(),
        torch.ones(3, 10)[:, ::2],
        torch.ones(3, 5, dtype=torch.int8),
    ):
        rows = layout.rows(matrix, torch.zeros(5))
        assert rows.shape == (3, 5)
        assert rows.stride(1) == 1


class Liar(torch.Tensor):
    """Says that its norm is zero, and that it is one row."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(func, types, args, kwargs or {})
        return found * 0 if "norm" in func.__name__ else found

    @property
    def shape(self) -> Any:
        return torch.Size([4])

    @property
    def ndim(self) -> int:
        return 1


class LyingArray(np.ndarray):
    @property
    def shape(self) -> Any:
        return (4,)

    @property
    def ndim(self) -> int:
        return 1


def test_a_subclass_of_a_tensor_is_read_by_our_methods_and_not_by_its_own() -> None:
    layout = Layout(torch.zeros(2, 2))
    sent = torch.full((4,), 1e6).as_subclass(Liar)
    assert type(as_tensor(sent)) is torch.Tensor
    found = layout.rows(sent, torch.zeros(4), one=True)
    assert type(found) is torch.Tensor
    assert float(found.norm()) == 2e6
    array = np.ones((5, 4), "float32")
    for several in (torch.ones(5, 4).as_subclass(Liar), array.view(LyingArray)):
        with pytest.raises(ValueError, match="one client sent 5 updates"):
            layout.rows(several, torch.zeros(4), one=True)
