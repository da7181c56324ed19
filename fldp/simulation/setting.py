"""What a run is called with, and whether it goes together: a ValueError says what does not."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from fldp._checks import choice, real, shown, whole
from fldp.mechanism.clipping import as_clip
from fldp.mechanism.intake import as_numbers, check_equal, check_weights
from fldp.mechanism.noise import Gaussian
from fldp.mechanism.updates import flatten
from fldp.plan import PrivacyPlan
from fldp.simulation.algorithm import Algorithm
from fldp.simulation.averaging import Weights
from fldp.simulation.clients import Population
from fldp.simulation.engines import check_model
from fldp.simulation.evaluation import Exam, Validation
from fldp.simulation.isolation import copied
from fldp.simulation.objective import Loss, Objective
from fldp.simulation.sampling import Everyone, Poisson, Sampler, check_sampler, for_plan
from fldp.simulation.server import FedAvg


class CanaryHook(Protocol):
    """What an audit puts into a run: clients whose updates it makes up."""

    count: int

    def rows(self, ids: Tensor, round: int) -> Tensor:
        """Raw updates (len(ids), d) of the canary clients `ids`, of the plan's N."""
        ...

    def observe(self, release_mean: Tensor, round: int) -> None:
        """The mean that a round released (d,)."""
        ...


# What an argument must be, and what to give.
_KINDS: dict[str, tuple[type, str]] = {
    "model": (nn.Module, "a torch nn.Module"),
    "population": (Population, "a Population, such as fldp.clients.partition makes"),
    "plan": (PrivacyPlan, "a plan of fldp.calibrate, or None (a RecordPlan goes into DPSGD)"),
    "local": (Algorithm, "a local algorithm, such as LocalSGD(), or LocalFunction(fn)"),
    "server": (FedAvg, "a server optimiser, such as FedAvg() or FedAdam()"),
    "sampler": (Sampler, "a sampler, such as Poisson(q), or leave it out"),
}
_OPTIONAL = ("plan", "local", "server", "sampler")


@dataclass
class Setting:
    """What `train` was called with; see there."""

    model: nn.Module
    population: Population
    plan: PrivacyPlan | None
    clip: Any
    local: Algorithm | None
    server: FedAvg | None
    validation: Validation | None
    loss: Loss | None
    metric: Any
    seed: int | None
    noise: Gaussian | None
    generator: torch.Generator | None
    weights: Any
    weight_cap: float | None
    weight_total: float | None
    sampler: Sampler | None
    rounds: int | None
    cohort: float | None
    device: str | torch.device | None
    canaries: CanaryHook | None

    def __post_init__(self) -> None:
        for name, (kind, remedy) in _KINDS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and not (value is None and name in _OPTIONAL):
                raise ValueError(f"{name} is {shown(value)}: give {remedy}")
        if self.canaries is not None and not hasattr(self.canaries, "observe"):
            raise ValueError(f"canaries is {shown(self.canaries)}: give an audit's canaries")
        check_weights_exist(self.model)
        check_device(self.device)

    @property
    def clients(self) -> int:
        """N: the population and the canaries of an audit."""
        if self.canaries is None:
            return len(self.population)
        return len(self.population) + self.canaries.count

    def clipping(self) -> Any:
        """The run's own clip; None, without a plan only, clips nothing."""
        if self.clip is not None:
            return copy.deepcopy(as_clip(self.clip))
        if self.plan is not None:
            raise ValueError("clip is None: without a bound on an update no noise hides it")
        return None

    def client_weights(self, local: Algorithm) -> Weights:
        """How much each client counts."""
        cap, total = check_weights(self.weight_cap, self.weight_total)
        if self.weights is None:
            if cap is not None:
                raise ValueError("weight_cap bounds weights: give weights as well")
            return Weights()
        if local.width(1) > 1:
            raise ValueError(
                f"{type(local).__name__} sends more than an update, which weights would not fit: "
                "leave weights out"
            )
        return Weights(self._each_weight(), cap, total)

    def _each_weight(self) -> Tensor | None:
        """A number for each client; None where all of them are equal, and nothing caps them."""
        each = self.weights
        if isinstance(each, str):
            choice("weights", each, ("records",))
            each = self.population.sizes
        values = as_numbers(each)
        if len(values) != len(self.population):
            raise ValueError(
                f"{len(values)} weights for {len(self.population)} clients: give one for each"
            )
        if self.weight_cap is None:
            check_equal(values)
            return None
        return torch.tensor(values, dtype=torch.float64)

    def schedule(self) -> tuple[int, float]:
        """T and m: the plan's, or what was given without one."""
        if self.plan is None:
            return self._free_schedule()
        if self.rounds is not None or self.cohort is not None:
            raise ValueError("rounds and cohort are the plan's: calibrate a plan with other ones")
        if self.canaries is not None and self.plan.trust != "central":
            raise ValueError(
                f"trust is {self.plan.trust!r}: canaries audit the model that a central server "
                "releases"
            )
        if self.plan.clients != self.clients:
            more = "" if self.canaries is None else f" and the audit {self.canaries.count} more"
            raise ValueError(
                f"the plan is for {self.plan.clients} clients, the population has "
                f"{len(self.population)}{more}: calibrate for the population that runs "
                "(fldp.extrapolate compares it with a larger one)"
            )
        return self.plan.rounds, self.plan.denominator

    def _free_schedule(self) -> tuple[int, float]:
        unused = self.generator is None and self.noise is None
        if self.rounds is None or not unused:
            raise ValueError(
                f"without a plan there is no noise: give rounds (got {self.rounds!r}), and neither "
                "noise nor generator"
            )
        if self.canaries is not None:
            raise ValueError("canaries audit what a plan states: give a plan")
        cohort = real("cohort", self.clients if self.cohort is None else self.cohort)
        if cohort > self.clients:
            raise ValueError(f"cohort is {self.cohort!r}: give a number in (0, {self.clients}]")
        return whole("rounds", self.rounds), cohort

    def cohorts(self, local: Algorithm) -> Sampler:
        """The run's own sampler: one that draws what the plan accounts for."""
        sampler = copy.deepcopy(self.sampler)
        if self.plan is None:
            rate = self.schedule()[1] / self.clients
            usual = Poisson(rate) if rate < 1 else Everyone()
            sampler = usual if sampler is None else sampler
        else:
            sampler = for_plan(self.plan) if sampler is None else sampler
            _accounted(self.plan, sampler, local)
        check_sampler(sampler)
        return sampler

    def placed(self) -> nn.Module:
        """A copy of the model on the device where clients train."""
        check_model(self.model)
        return copied(self.model).to(self._where())

    def _where(self) -> torch.device:
        """Where clients train."""
        if self.device is None:
            return flatten(self.model).device
        return torch.device(self.device)

    def objective(self) -> Objective:
        """What clients minimise and what validation reports, where clients train."""
        loss = self.loss
        if isinstance(loss, nn.Module):
            held = itertools.chain(loss.parameters(), loss.buffers())
            where = self._where()
            # "cuda" alone names no card: a tensor there says which one torch takes.
            card = torch.zeros(0, device=where).device
            # Where its weights lie there it stays the caller's, whose probes are remembered.
            if any(tensor.device != card for tensor in held):
                loss = copy.deepcopy(loss).to(card)
        return Objective(loss, self.metric)

    def exam(self, objective: Objective) -> Exam | None:
        """The validation data, checked."""
        return None if self.validation is None else Exam(self.validation, objective)


def check_weights_exist(model: nn.Module) -> None:
    """ValueError where parameters or buffers have no shape or no values yet, or are complex.

    Parameters
    ----------
    model : nn.Module
        What is to be trained.

    Raises
    ------
    ValueError
        It names the first such tensor.
    """
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(tensor):
            raise ValueError(
                f"{name!r} of the model has no shape yet: run the model on a record first, or give "
                "its layers their sizes"
            )
        if tensor.is_meta:
            raise ValueError(
                f"{name!r} of the model is on the meta device, without values: load its weights"
            )
        if tensor.is_complex():
            raise ValueError(
                f"{name!r} of the model is complex: give real weights, such as its real and "
                "imaginary parts"
            )


def check_device(device: str | torch.device | None) -> None:
    """ValueError for a device that this machine does not have.

    Parameters
    ----------
    device : str or torch.device or None
        None is where the model is.

    Raises
    ------
    ValueError
        It names the device.
    """
    if device is None:
        return
    try:
        if torch.zeros(1, device=torch.device(device)).is_meta:
            raise ValueError("it holds no values")
    except Exception as error:  # torch raises many kinds
        first, _, _ = str(error).partition("\n")
        raise ValueError(
            f"device is {shown(device)}, which this machine does not offer ({first}): give 'cpu' "
            "or 'cuda', or leave it out"
        ) from error


def _accounted(plan: PrivacyPlan, sampler: Sampler, local: Algorithm) -> None:
    if not sampler.matches(plan):
        raise ValueError(
            f"{sampler} is not what the plan accounts for (sampling={plan.sampling!r}, "
            f"q={plan.sampling_rate:g}, cap={plan.cap}, adjacency={plan.adjacency!r}): "
            "calibrate a plan for this sampler, or leave sampler out"
        )
    if local.remembers and (plan.sampling == "fixed" or plan.cap is not None):
        told = "fixed" if plan.cap is None else f"poisson with cap={plan.cap}"
        raise ValueError(
            f"sampling is {told}: one client's draw then moves what others remember, which is "
            f"not accounted; run {type(local).__name__} under sampling='poisson' without "
            "a cap, or with everyone"
        )
