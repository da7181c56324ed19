"""What runs: the models and tasks of `benchmarks.zoo` in every engine, and what an engine gains.

    python -m benchmarks.models [--clients 40] [--repeats 5] [--only LSTM] [--device cuda]

A round is one epoch of every client over its own 20 records, in batches of 10. `plain` is the loop
over clients that a user of torch writes first, `loop` is fldp's own. One process and one thread,
contenders interleaved, medians. Writes the table of the book as well (`book/models.md`), whose
words a test holds against what happens; not on another device, which has a file of its own.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import common
from benchmarks.zoo import SPECIMENS, Specimen
from fldp.mechanism.updates import flatten
from fldp.simulation.clients import Population
from fldp.simulation.inputs import call, cast, take
from fldp.simulation.local import LocalSGD
from fldp.simulation.objective import Objective

PAGE = Path(__file__).parent.parent / "book" / "models.md"
ON_GPU = common.RESULTS / "models_cuda.json"
ENGINES = ("stacked", "vmap", "loop")
RATE, BATCH, RECORDS = 0.05, 10, 20
# A client of a model with more parameters trains for a second: few of them tell as much.
LARGE, FEW = 1_000_000, 4
# Of a refusal, the words up to the first of these say what is wrong.
_ENDS = re.compile(r"[:;(]| and cross-entropy| whose ")
INTRODUCTION = """# What runs

A round trains many small models from the same weights, and an *engine* is a way to do so: `loop`
trains one client after the other, `vmap` runs the model for many clients at once by `torch.func`,
and `stacked` has the layers that it knows written out for all clients together. The updates are the
same.

Every row is a model and a task, tried in every engine with records made up for it, and compared
with `torch.optim.SGD` at each client alone (`tests/test_zoo.py`; equal to 1e-5 in double precision,
with the same dropout masks). `engine="auto"` takes the engine that is named; `history.engine` says
which it was, and why. The gain is the time of a round of {clients} clients in a plain loop over
copies of the model, divided by its time with that engine: measured on one thread, all of a row in
turn (`python -m benchmarks.models`). The gain on a GPU is that of {others} clients on an {device}
(`--device cuda`). Below 1, the loop of the package, which checks more, is slower
than the plain one. Where it says *refused*, the run ends with these words before
anybody is drawn.

| Model | Task | `engine="auto"` | Gain | On a GPU | stacked | vmap | loop |
|---|---|---|---|---|---|---|---|
"""


def population(specimen: Specimen, clients: int) -> Population:
    """Clients with 20 records each."""
    x, y = specimen.data(clients * RECORDS, torch.Generator().manual_seed(0))
    index = torch.arange(clients * RECORDS).view(clients, RECORDS)
    return Population(x, y, index)


def prepared(specimen: Specimen, engine: str, people: Population) -> tuple[LocalSGD, nn.Module]:
    """The algorithm and its model, as a run has them before its first round."""
    torch.manual_seed(0)
    local = LocalSGD(lr=RATE, batch_size=BATCH, engine=engine)
    local.learn(Objective(loss_on(specimen, people.device)))
    model = local.prepare(specimen.make().to(people.device))
    local.rehearse(model, flatten(model).float(), people)
    return local, model


def loss_on(specimen: Specimen, device: torch.device) -> Any:
    """The specimen's loss; one with weights of its own on the device."""
    if isinstance(specimen.loss, nn.Module):
        return copy.deepcopy(specimen.loss).to(device)
    return specimen.loss


def words(specimen: Specimen, engine: str) -> str:
    """What happens: the engine that runs and why, or "refused" with the first words."""
    people = population(specimen, 2)
    try:
        local, _ = prepared(specimen, engine, people)
    except ValueError as error:
        return f"refused: {first(str(error))}"
    return first(local.trained_by()) if engine == "auto" else "runs"


def first(text: str) -> str:
    """The first words of a message, those in brackets and the remedy left out."""
    name, colon, why = text.partition(": ")
    if name in ENGINES and colon:
        return f"{name}: {_ENDS.split(why)[0].strip()}"
    reason = re.sub(r"^engine is '\w+', but (there is )?", "", text)
    return _ENDS.split(reason)[0].strip()


def plain(specimen: Specimen, local: LocalSGD, model: nn.Module, people: Population) -> None:
    """The loop over clients that a user of torch writes first, each client's update at its end."""
    objective = Objective(loss_on(specimen, people.device))
    like = local.form(model, flatten(model).float(), people)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    own = copy.deepcopy(model)
    flat = flatten(model)
    for i in range(len(people)):
        x, y = people.client(i)
        x = cast(x, like)
        own.load_state_dict(start)
        optimiser = torch.optim.SGD([p for p in own.parameters() if p.requires_grad], lr=RATE)
        for picked in torch.randperm(len(y)).split(BATCH):
            optimiser.zero_grad()
            objective.mean(call(own, take(x, picked)), y[picked]).backward()
            optimiser.step()
        flatten(own).sub_(flat)


def rounds(local: LocalSGD, model: nn.Module, people: Population) -> Callable[[], None]:
    flat = flatten(model).float()

    def run() -> None:
        for _ in local.updates(model, flat, people, range(len(people))):
            pass

    return run


def gain(specimen: Specimen, clients: int, repeats: int, device: str) -> dict[str, float]:
    """Seconds of a round by contender."""
    if sum(p.numel() for p in specimen.make().parameters()) > LARGE:
        clients = FEW
    people = population(specimen, clients).to(device)
    contenders: dict[str, Callable[[], Any]] = {}
    for engine in ("auto", "loop"):
        local, model = prepared(specimen, engine, people)
        contenders[engine] = rounds(local, model, people)
    contenders["plain"] = lambda: plain(specimen, local, model, people)
    settle = torch.cuda.synchronize if device.startswith("cuda") else None
    return common.medians(contenders, repeats, settle=settle)


def row(specimen: Specimen) -> dict[str, Any]:
    """What the table says of a model, but for times."""
    return {"model": specimen.family, "task": specimen.task} | {
        engine: words(specimen, engine) for engine in ("auto", *ENGINES)
    }


def gained(found: dict[str, Any]) -> str:
    """By how much a row's engine is faster than a plain loop; nothing for what is refused."""
    if "seconds" not in found:
        return ""
    return f"{found['seconds']['plain'] / found['seconds']['auto']:.1f}"


def page(document: dict[str, Any], elsewhere: dict[str, Any]) -> str:
    """The page of the book, from the results on a processor and on a GPU."""
    opening = INTRODUCTION.format(
        clients=document["clients"], others=elsewhere["clients"], device=elsewhere["device"]
    )
    lines = []
    for found, there in zip(document["rows"], elsewhere["rows"], strict=True):
        cells = [found["model"], found["task"], found["auto"], gained(found), gained(there)]
        cells += [found[name] for name in ENGINES]
        lines.append(f"| {' | '.join(cells)} |")
    return opening + "\n".join(lines) + "\n"


def main() -> None:
    made = common.parser(__doc__, "models")
    made.add_argument("--clients", type=int, default=40)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--only", default="", help="part of a model's name")
    made.add_argument("--device", default="cpu", help="where clients train")
    options = made.parse_args()
    elsewhere = options.device != "cpu"
    if elsewhere and options.output == common.RESULTS / "models.json":
        options.output = ON_GPU
    common.one_thread(quiet=True)
    document: dict[str, Any] = {"clients": options.clients, "machine": common.machine(), "rows": []}
    if elsewhere:
        document["device"] = torch.cuda.get_device_name(options.device)
    for specimen in SPECIMENS:
        if options.only not in specimen.name:
            continue
        found = row(specimen)
        if not found["auto"].startswith("refused"):
            found["seconds"] = gain(specimen, options.clients, options.repeats, options.device)
            seconds = found["seconds"]
            told = "  ".join(f"{name} {1e3 * value:7.1f} ms" for name, value in seconds.items())
            ratio = seconds["plain"] / seconds["auto"]
            print(
                f"{specimen.name:45s} {told}  plain/auto {ratio:5.1f}  {found['auto']}", flush=True
            )
        document["rows"].append(found)
    common.write(options, document)
    if not (options.no_write or options.only or elsewhere):
        PAGE.write_text(page(document, common.read(ON_GPU)), encoding="utf-8")


if __name__ == "__main__":
    main()
