"""The one place where private data becomes a release: intake, clip, sum, noise, mean."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fldp.clipping import FlatClip, as_tensor, bounded_rows, unpack
from fldp.noise import gaussian_

if TYPE_CHECKING:
    from fldp.accounting import Event
    from fldp.plan import PrivacyPlan

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_ROWS, _TILE = 16, 1 << 22


@dataclass(frozen=True, repr=False)
class PrivateDiagnostics:
    """What the server saw in the clear. NOT for release: no noise was added to any of it.

    Publishing a norm, a fraction or a count from here is outside the plan's guarantee.
    """

    norms: tuple[float, ...]
    clipped_fraction: float
    malformed: int
    count: int
    first_problem: str | None = None

    def __repr__(self) -> str:
        return "PrivateDiagnostics(<not for release>)"


@dataclass(frozen=True)
class Release:
    """What leaves the server: the noisy mean and facts that do not depend on anybody's data.

    `mean` has the structure of the updates. `noise_std` is the standard deviation on each
    coordinate of the mean, `denominator` the public number the noisy sum was divided by, `event`
    what the accountant composes. `reproducible` tells that the caller supplied the generator.
    """

    mean: Any
    noise_std: float
    denominator: float
    event: Event
    reproducible: bool
    private: PrivateDiagnostics = field(repr=False)


class _Layout:
    """The structure that every update of a round must have."""

    def __init__(self, like: Any) -> None:
        self.buffers: set[str] = set()
        if isinstance(like, nn.Module):
            self.buffers = {name for name, _ in like.named_buffers()}
            like = {n: p for n, p in like.named_parameters() if p.requires_grad}
        self.names, leaves, self._rebuild = unpack(like)
        sent = [n for n in self.names if n.rsplit(".", 1)[-1] in _BUFFERS]
        if sent:
            raise ValueError(
                f"{sent} are buffers, not trainable parameters: leave them out of the updates"
            )
        tensors = [as_tensor(leaf) for leaf in leaves]
        self.shapes = [t.shape for t in tensors]
        self.sizes = [t.numel() for t in tensors]
        self.total = sum(self.sizes)
        if self.total == 0:
            raise ValueError("the updates have no entries: nothing to aggregate")
        self.device = tensors[0].device
        self.dtype = torch.float32
        if all(t.dtype == torch.float64 for t in tensors):
            self.dtype = torch.float64
        self.slices: list[tuple[int, int]] = []
        end = 0
        for size in self.sizes:
            self.slices.append((end, end + size))
            end += size

    def rows(self, update: Any) -> Tensor:
        """`update` as a (c, d) matrix; ValueError names the first tensor that does not fit."""
        if isinstance(update, Tensor | np.ndarray) and self.shapes != [tuple(update.shape)]:
            matrix = as_tensor(update)
            if matrix.ndim == 2 and matrix.shape[1] == self.total:
                return matrix.to(self.device, self.dtype)
            if matrix.ndim == 1 and matrix.shape[0] == self.total:
                return matrix.to(self.device, self.dtype).unsqueeze(0)
        names, leaves, _ = unpack(update)
        for name in names:
            if name not in self.names:
                if name in self.buffers or name.rsplit(".", 1)[-1] in _BUFFERS:
                    raise ValueError(f"{name!r} is a buffer: send trainable parameters only")
                raise ValueError(f"{name!r} is not a tensor of this model: {self.names[:3]}...")
        given = dict(zip(names, leaves, strict=True))
        parts = []
        for name, shape in zip(self.names, self.shapes, strict=True):
            if name not in given:
                raise ValueError(f"tensor {name!r} of shape {tuple(shape)} is missing")
            part = as_tensor(given[name])
            if part.shape != shape:
                raise ValueError(
                    f"tensor {name!r} has shape {tuple(part.shape)}, expected {tuple(shape)}"
                )
            parts.append(part.reshape(-1).to(self.device, self.dtype))
        return (torch.cat(parts) if len(parts) > 1 else parts[0]).unsqueeze(0)

    def restore(self, flat: Tensor) -> Any:
        parts = flat.split(self.sizes)
        shaped = [p.reshape(s) for p, s in zip(parts, self.shapes, strict=True)]
        return self._rebuild(shaped)


class PrivateAggregator:
    """Clip, sum and noise the updates of one round, one at a time: memory O(d), one release.

    Guarantee: the release satisfies `plan.event` for the plan's adjacency, whatever the clients
    send. A NaN, an infinity, a wrong shape or a wrong type contributes exactly zero; it never
    aborts the round, because an abort would itself depend on private data. With `strict` (what
    `aggregate` uses) a wrong structure raises instead: it is a programming error there.

    Parameters: `like` an update, a module or a flat tensor (d,) with the expected structure; `plan`
    the plan that was accounted; `clip` a clip norm C or a clip; `generator` a torch generator for
    reproducible noise, None for cryptographic noise.
    """

    def __init__(
        self,
        like: Any,
        plan: PrivacyPlan,
        clip: float | FlatClip = 1.0,
        *,
        weight_cap: float | None = None,
        generator: torch.Generator | None = None,
        strict: bool = False,
    ) -> None:
        if plan.trust not in ("central", "distributed", "local"):
            raise ValueError(f"the plan's trust model {plan.trust!r} is unknown")
        if not plan.noise_multiplier > 0:
            raise ValueError(f"the plan's noise multiplier is {plan.noise_multiplier}: not private")
        if plan.trust == "distributed" and not plan.survivors:
            raise ValueError("distributed trust needs plan.survivors, the stated minimum per round")
        if weight_cap is not None and not (math.isfinite(weight_cap) and weight_cap > 0):
            raise ValueError(f"weight_cap must be a positive public number, got {weight_cap!r}")
        self.plan = plan
        self.clip = clip if isinstance(clip, FlatClip) else FlatClip(clip)
        self.cap = weight_cap
        self._layout = _Layout(like)
        self._generator, self._strict, self._released = generator, strict, False
        self._sum = torch.zeros(
            self._layout.total, device=self._layout.device, dtype=self._layout.dtype
        )
        self._norms: list[float] = []
        self._clipped = self._malformed = 0
        self._problem: str | None = None

    def add(self, update: Any, weight: float | Sequence[float] | Tensor | None = None) -> None:
        """Add one client's update, or a matrix (c, d) with one client per row."""
        if self._released:
            raise ValueError("this aggregator has released: start a new one for the next round")
        if weight is not None and self.cap is None:
            raise ValueError("weights change the sensitivity: give a public weight_cap")
        try:
            rows = self._layout.rows(update)
        except Exception as error:
            if self._strict:
                raise
            self._room(1)
            self._malformed += 1
            self._norms.append(math.nan)
            self._problem = self._problem or str(error)
            return
        self._room(rows.shape[0])
        weights = self._weights(weight, rows.shape[0])
        step = max(1, min(_ROWS, _TILE // max(1, rows.shape[1])))
        for start in range(0, rows.shape[0], step):
            stop = start + step
            self._tile(rows[start:stop], None if weights is None else weights[start:stop])

    def _room(self, count: int) -> None:
        limit = self.plan.clients if self.plan.cap is None else self.plan.cap
        if limit is not None and len(self._norms) + count > limit:
            raise ValueError(f"the plan accounts for at most {limit} clients in a round")

    def _weights(self, weight: Any, count: int) -> Tensor | None:
        if self.cap is None:
            return None
        value = torch.as_tensor(1.0 if weight is None else weight, dtype=torch.float64).reshape(-1)
        return value.expand(count) if value.numel() == 1 else value

    def _tile(self, rows: Tensor, weights: Tensor | None) -> None:
        rows, norms, finite = bounded_rows(rows)
        factors = self.clip.factors(norms)
        self._clipped += int((factors < 1).sum())
        factors = factors * finite
        if weights is not None:
            usable = torch.isfinite(weights) & (weights >= 0)
            capped = torch.where(usable, weights, 0.0).clamp_(max=self.cap).to(factors.device)
            factors = factors * capped
        self._malformed += int((~finite).sum())
        self._norms.extend(norms.tolist())
        self._sum.addmv_(rows.t(), factors.to(rows.dtype))

    def release(self) -> Release:
        """The noisy mean of everything added; the aggregator is finished afterwards."""
        if self._released:
            raise ValueError("released already: a second release of the same data is not accounted")
        plan, count = self.plan, len(self._norms)
        spread = 1.0
        if plan.trust == "local":
            spread = math.sqrt(count)
        elif plan.trust == "distributed":
            if plan.survivors is None or count < plan.survivors:
                raise ValueError(
                    f"fewer than the stated minimum of {plan.survivors} clients took part: "
                    "their noise shares do not add up, so nothing is released"
                )
            spread = math.sqrt(count / plan.survivors)
        self._released = True
        cap = 1.0 if self.cap is None else self.cap
        std = plan.noise_multiplier * self.clip.norm * cap * spread
        denominator = float(plan.denominator) * cap
        gaussian_(self._sum, std, self._generator)
        private = PrivateDiagnostics(
            norms=tuple(self._norms),
            clipped_fraction=self._clipped / max(1, count),
            malformed=self._malformed,
            count=count,
            first_problem=self._problem,
        )
        return Release(
            mean=self._layout.restore(self._sum.div_(denominator)),
            noise_std=std / denominator,
            denominator=denominator,
            event=plan.event,
            reproducible=self._generator is not None,
            private=private,
        )


def aggregate(
    updates: Any,
    plan: PrivacyPlan,
    clip_norm: float | FlatClip = 1.0,
    *,
    weights: Sequence[float] | None = None,
    weight_cap: float | None = None,
    generator: torch.Generator | None = None,
    like: Any = None,
) -> Release:
    """The private mean of one round's updates: clipped, summed, noised, averaged.

    `updates` is a matrix (c, d) with one client per row, or an iterable of updates: state dicts,
    lists of tensors, flat tensors, numpy arrays, or (before, after) pairs of modules. An empty
    cohort needs `like`, an update or module with the right structure; it still releases noise.
    """
    if weights is not None and weight_cap is None and len(set(map(float, weights))) > 1:
        raise ValueError("unequal weights need a public weight_cap: the sensitivity depends on it")
    kept = weights if weight_cap is not None else None
    if isinstance(updates, Tensor | np.ndarray):
        first = like if like is not None else as_tensor(updates)[0]
        whole = PrivateAggregator(
            first, plan, clip_norm, weight_cap=weight_cap, generator=generator, strict=True
        )
        whole.add(updates, kept)
        return whole.release()
    aggregator: PrivateAggregator | None = None
    stream: Iterable[Any] = updates
    for i, update in enumerate(stream):
        if aggregator is None:
            aggregator = PrivateAggregator(
                update if like is None else like,
                plan, clip_norm, weight_cap=weight_cap, generator=generator, strict=True,
            )  # fmt: skip
        aggregator.add(update, None if kept is None else kept[i])
    if aggregator is None:
        if like is None:
            raise ValueError("no updates: pass like= so that the release knows its structure")
        aggregator = PrivateAggregator(
            like, plan, clip_norm, weight_cap=weight_cap, generator=generator, strict=True
        )
    return aggregator.release()
