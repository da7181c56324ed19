"""One table of what the last runs measured: ``python -m benchmarks.table``.

Reads the JSON files of `benchmarks/results/`, measures nothing, and writes two files beside them:
`README.md`, the table, and `growth.svg`, how a simulated round grows. A figure that no run has
measured yet is left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks import common
from fldp._text import up


def load(name: str) -> dict[str, Any]:
    return common.read(common.RESULTS / f"{name}.json")


def table(head: list[str], rows: list[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def times(value: float) -> str:
    return f"{value:.2g}×" if value < 10 else f"{value:,.0f}×"


def accounting() -> Iterator[str]:
    found = load("accounting")
    if not found:
        return
    yield "## Calibration\n\n`python -m benchmarks.accounting`\n"
    tools = ["opacus rdp", "opacus prv", "dp-accounting pld"]
    rows = []
    settings: dict[tuple[float, ...], dict[str, Any]] = {}
    for row in found["calibration"]:
        key = (row["epsilon"], row["delta"], row["q"], row["rounds"])
        settings.setdefault(key, {})[row["tool"]] = row
    for (epsilon, delta, q, rounds), by in settings.items():
        saved = by["opacus rdp"]["fldp_noise_smaller"]
        rows.append(
            [f"ε {epsilon:g}, δ {delta:g}, q {q:g}, T {rounds:g}",
             f"{by['fldp']['milliseconds']:.2g} ms",
             *(times(by[tool]["times_fldp"]) for tool in tools), f"{100 * saved:.1f} %"]
        )  # fmt: skip
    head = ["setting", "fldp", *(f"{tool} takes" for tool in tools), "noise saved against RDP"]
    yield from table(head, rows)
    for name in ("reference_cases", "random_settings"):
        if gaps := found.get(name):
            yield (
                f"ε above the reference by {gaps['lowest']:+.1e} to {gaps['highest']:+.1e} "
                f"(median {gaps['median']:+.1e}) over {gaps['cases']} {name.replace('_', ' ')}; "
                f"below it by more than 1e-6: {gaps['below_by_more_than_1e-6']}, above by more "
                f"than 1e-3: {gaps['above_by_more_than_1e-3']}.\n"
            )
    if hard := found.get("hard_questions"):
        yield "Questions that were slow, loose or refused:\n"
        rows = [
            [row["question"], f"{row['milliseconds']:.2g} ms", f"{row['answer']:.6g}",
             f"{row['dp_accounting']:.6g}" if "dp_accounting" in row else "",
             times(row["dp_accounting_milliseconds"] / row["milliseconds"])
             if "dp_accounting" in row else ""]
            for row in hard
        ]  # fmt: skip
        columns = ["question", "fldp", "answer", "dp-accounting's answer", "dp-accounting takes"]
        yield from table(columns, rows)
    processes = found["processes_seconds"]
    ours = max(processes["import fldp"], processes["fldp calibrate"])
    yield (
        f"Whole processes: the slower of `import fldp` and `fldp calibrate` takes "
        f"{ours / processes['import dp_accounting']:.2f} of the time of importing dp_accounting "
        f"and {ours / processes['import opacus.accountants']:.2f} of Opacus' accountants.\n"
    )


def aggregation() -> Iterator[str]:
    found = load("aggregation")
    if not found:
        return
    yield "## Aggregation\n\n`python -m benchmarks.aggregation`, times that of `fldp.aggregate`\n"
    names = list(found["speed"][0]["times_slower_than_fldp"])
    rows = [
        [f"{row['clients']:,} × {row['parameters']:,}",
         *(times(row["times_slower_than_fldp"][n]) if n in row["times_slower_than_fldp"] else ""
           for n in names), f"{100 * row['share_of_read_bandwidth']:.0f} %"]
        for row in found["speed"]
    ]  # fmt: skip
    yield from table(["clients × parameters", *names, "of read bandwidth"], rows)
    if dicts := found.get("dictionaries"):
        yield "State dicts of several tensors, times that of `fldp.aggregate` of these dicts:\n"
        names = list(dicts[0]["times_slower_than_fldp"])
        rows = [
            [f"{row['clients']:,} × {row['parameters']:,} in {row['tensors']} tensors",
             *(f"{row['times_slower_than_fldp'][name]:.2f}×" for name in names)]
            for row in dicts
        ]  # fmt: skip
        yield from table(["clients × parameters", *names], rows)
    yield (
        "Peak memory of stacking, over that of streaming: "
        + ", ".join(f"{row['stack_over_stream']:g}×" for row in found["memory"])
        + f". Cryptographic noise at {found['noise']['cryptographic_over_torch']:g} of the speed "
        "of torch's `normal_`.\n"
    )


def simulation() -> Iterator[str]:
    for device, found in load("simulation").items():
        if isinstance(found, str):
            yield f"On {device}: {found}.\n"
            continue
        yield (
            f"## Simulated rounds, {device}\n\n`python -m benchmarks.simulation --device {device}`,"
            " 100 clients of 20 records, times that of fldp\n"
        )
        names = list(dict.fromkeys(n for r in found["speed"] for n in r["times_slower_than_fldp"]))
        rows = [
            [row["model"], f"{row['milliseconds']['fldp']:.1f} ms",
             *(times(row["times_slower_than_fldp"][n]) if n in row["times_slower_than_fldp"] else ""
               for n in names)]
            for row in found["speed"]
        ]  # fmt: skip
        yield from table(["model", "fldp", *names], rows)
        if rows := found.get("memory"):
            said = (f"{r['model']}, {r['clients']:,} clients: {r['mib']:g} MiB" for r in rows)
            yield f"Memory that a round adds: {'; '.join(said)}.\n"
        if device == "cpu" and "growth" in found:
            yield "![How a round grows with cohort, parameters and population](growth.svg)\n"


def algorithms() -> Iterator[str]:
    found = load("algorithms")
    if not found:
        return
    setting = found["setting"]
    yield (
        f"## Algorithms\n\n`python -m benchmarks.algorithms`, digits, ε = {setting['epsilon']:g}, "
        f"δ = {setting['delta']:g}, {setting['rounds']} rounds, {setting['seeds']} seeds\n"
    )
    rows = [
        [row["federation"], row["algorithm"], row["level"] if row["level"] in ("none", "record")
         else f"client, {row['level']}", f"{row['accuracy_mean']:.3f} ± {row['accuracy_sd']:.3f}",
         f"{row['seconds_median']:.2f} s"]
        for row in found["rows"]
    ]  # fmt: skip
    yield from table(["federation", "algorithm", "guarantee", "accuracy", "a run"], rows)


def digits() -> Iterator[str]:
    found = load("digits")
    if not found:
        return
    yield f"## Digits\n\n`python -m benchmarks.digits`, {found['setting']['seeds']} seeds\n"
    rows = [
        ["none" if row["epsilon"] is None else f"{row['epsilon']:g}",
         f"{row['accuracy_mean']:.3f} ± {row['accuracy_sd']:.3f}", f"{row['seconds_median']:.2f} s"]
        for row in found["rows"]
    ]  # fmt: skip
    yield from table(["ε", "accuracy", "a run"], rows)


def others() -> Iterator[str]:
    if found := load("kill_test"):
        yield (
            f"## Crashes\n\n`python -m benchmarks.kill_test`: {found['runs']} runs, "
            f"{found['kills']} kills, {found['under']} accounts below the truth, {found['ended']} "
            "runs ended.\n"
        )
    if found := load("mnist"):
        yield "## MNIST\n\n`python -m benchmarks.mnist`, 10,000 clients of 6 images\n"
        rows = [
            [run["model"], str(run["rounds"]), f"{run['epsilon']:.2f}", f"{run['accuracy']:.3f}",
             f"{run['seconds']:.0f} s", f"`{run['digest']}`"]
            for run in found["runs"]
        ]  # fmt: skip
        yield from table(["model", "rounds", "ε", "accuracy", "a run", "digest"], rows)
        yield from many(found.get("curves", {}))
    if found := load("audits"):
        faults, correct = found["faults"], found["correct"]
        caught = sum(row["audit"] or row["neighbour_test"] for row in faults.values())
        wrong = sum(row["audit"] or row["neighbour_test"] for row in correct.values())
        yield (
            f"## Audits\n\n`python -m benchmarks.audits`: {caught} of {len(faults)} planted faults "
            f"found, {wrong} of {len(correct)} correct pipelines accused.\n"
        )
        rows = [
            [epsilon, *(f"{row[method]:.2f}" for method in ("gdp", "one-run", "clopper-pearson"))]
            for epsilon, row in found["power"].items()
        ]
        yield from table(["ε", "found, Gaussian", "found, one-run", "found, Clopper-Pearson"], rows)


def many(found: dict[str, Any]) -> Iterator[str]:
    """What many clients buy, on MNIST."""
    if not found:
        return
    setting = found["setting"]
    yield (
        f"What many clients buy: a linear model, {setting['images']} images a client, one client "
        f"in ten a round, {setting['rounds']} rounds, δ = {setting['delta']:g}, "
        f"{setting['seeds']} seeds; clip and momentum chosen on validation data.\n"
    )
    rows = [
        [f"{row['clients']:,}", f"{row['epsilon'] or 'none'}",
         f"{row['noise_multiplier'] or 0:.2f}", f"{row['clip'] or 'none'}", f"{row['momentum']}",
         f"{row['accuracy_mean']:.3f} ± {row['accuracy_sd'] or 0:.3f}"]
        for row in found["rows"]
    ]  # fmt: skip
    yield from table(["clients", "ε", "z", "clip", "momentum", "accuracy"], rows)


def clients() -> Iterator[str]:
    """The headline experiment."""
    found = load("mnist_clients")
    if not found:
        return
    yield (
        "## MNIST in the hands of clients\n\n`python -m benchmarks.mnist_clients`: all 60,000 "
        "images, dealt at random (iid) or two shards of one digit to each client (shards); ε is "
        "that of a client, once against whoever sees the models, once against who also knows who "
        "took part; accuracy on the test images.\n"
    )
    head = [
        "clients",
        "dealt",
        "model",
        "ε",
        "ε, cohort known",
        "δ",
        "T",
        "m",
        "z",
        "C",
        "accuracy",
    ]
    rows = [
        [f"{row['clients']:,}", row["partition"], row["model"], *_promise(row),
         f"{row['rounds']}", f"{row['cohort']:,.0f}", _number(row["noise_multiplier"]),
         _number(row["clip"]), _accuracy(row)]
        for row in found.get("table", [])
    ]  # fmt: skip
    yield from table(head, rows)
    if changed := found.get("ablation"):
        yield "Two shards a client, ε = 8, one thing changed at a time:\n"
        rows = [
            [f"{row['clients']:,}", row["change"], f"{row['parameters']:,}", f"{row['rounds']}",
             _accuracy(row)]
            for row in changed
        ]  # fmt: skip
        yield from table(["clients", "changed", "parameters", "T", "accuracy"], rows)


def _promise(row: dict[str, Any]) -> list[str]:
    """ε, ε against who knows the cohorts, and δ."""
    if row["epsilon"] is None:
        return ["none", "none", ""]
    return [f"{row['epsilon']:g}", up(row["epsilon_cohort_known"], 3), f"{row['delta']:g}"]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def _accuracy(row: dict[str, Any]) -> str:
    return f"{100 * row['accuracy_mean']:.2f} ± {100 * (row['accuracy_std'] or 0):.2f} %"


def populations() -> Iterator[str]:
    if found := load("populations"):
        yield (
            "## Populations\n\n`python -m benchmarks.populations`, each in a process of its own, "
            "on one thread\n"
        )
        rows = [
            [row["case"], f"{row['seconds']:.2f} s", f"{row['mebibytes']:.0f} MiB"]
            for row in found["rows"]
        ]
        yield from table(["case", "takes", "memory above the libraries'"], rows)
    if found := load("schools"):
        setting = found["setting"]
        yield (
            f"## Schools\n\n`python -m benchmarks.schools`, six grades, {setting['seeds']} seeds, "
            f"ε for a school at δ = {setting['delta']:g}\n"
        )
        rows = [
            [f"{row['epsilon'] or 'none'}", f"{row['accuracy_mean']:.3f}",
             f"{row['accuracy_sd'] or 0:.3f}"]
            for row in found["rows"]
        ]  # fmt: skip
        yield from table(["ε", "accuracy", "standard deviation"], rows)
    if found := load("school_weights"):
        setting = found["setting"]
        yield (
            f"## Weights of schools\n\n`python -m benchmarks.school_weights`, the A-level score, "
            f"{setting['seeds']} seeds, ε for a school at δ = {setting['delta']:g}; it counts "
            "for its students, at most for the cap\n"
        )
        rows = [
            [f"{row['epsilon'] or 'none'}", f"{row['cap'] or 'once each'}",
             f"{row['error_mean']:.3f}", f"{row['error_sd']:.3f}"]
            for row in found["rows"]
        ]  # fmt: skip
        yield from table(["ε", "cap", "root mean squared error", "standard deviation"], rows)


def draw(growth: dict[str, list[dict[str, float]]]) -> None:
    """Milliseconds of a round as cohort, parameters and population grow."""
    import matplotlib.pyplot as plt

    from fldp import plotting

    plotting.apply()
    plt.rcParams["svg.hashsalt"] = "fldp"
    figure, panels = plt.subplots(1, 3, figsize=(8.4, 2.8), constrained_layout=True)
    for axes, (name, rows) in zip(panels, growth.items(), strict=True):
        by = "parameters" if name == "parameters" else "clients"
        for colour, key in zip(plotting.CYCLE, ("fldp (ms)", "plain loop (ms)"), strict=False):
            points = [(row[by], row[key]) for row in rows if key in row]
            if points:
                label = key.removesuffix(" (ms)")
                axes.plot(*zip(*points, strict=True), "o-", color=colour, label=label)
        axes.set(xscale="log", yscale="log", xlabel=name, ylim=(0.8, 200))
    panels[0].set_ylabel("ms a round")
    panels[0].legend()
    figure.savefig(common.RESULTS / "growth.svg", metadata={"Date": None})


def main() -> int:
    sections = (
        accounting,
        aggregation,
        simulation,
        algorithms,
        digits,
        others,
        clients,
        populations,
    )
    lines = [line for section in sections for line in section()]
    intro = (
        "# What the benchmarks measured\n\nWritten by `python -m benchmarks.table` from the JSON "
        "files beside it. Compare ratios inside one run; seconds depend on the machine.\n"
    )
    text = "\n".join([intro, *lines]).rstrip() + "\n"
    print(text)
    (common.RESULTS / "README.md").write_text(text, encoding="utf-8")
    growth = load("simulation").get("cpu", {}).get("growth")
    if growth:
        draw(growth)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
