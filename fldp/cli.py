"""The command line: ``fldp calibrate | epsilon | rounds | explain``; thin."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from fldp import __version__, accounting
from fldp._text import up
from fldp.plan.client import TRUSTS, calibrate

# Significant digits of a printed ε or z, rounded up; --json prints all of them.
DIGITS = 6

EXAMPLES = """examples:
  fldp calibrate --epsilon 8 --delta 1e-3 --rounds 60 --clients 480 --cohort 120
      the noise multiplier for a federation, and what it guarantees in plain words
  fldp epsilon --noise-multiplier 1 --delta 1e-5 --rounds 100 --sampling-rate 0.01
      what a given noise costs
  fldp rounds --epsilon 8 --delta 1e-3 --noise-multiplier 1 --sampling-rate 0.25
      how many rounds a budget allows
  fldp explain --epsilon 8 --delta 1e-5 --rounds 15 --clients 10 --records 50000 \\
      --batch-size 16 --local-epochs 2
      what the recipe of Opacus issue 669 claims, and what it gives

In Python: import fldp; print(fldp.calibrate(epsilon=8, rounds=60, clients=480).statement())
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


# Option -> (type or choices, default, help); a default of ... means that it must be given.
OPTIONS: dict[str, tuple[Any, Any, str]] = {
    "epsilon": (float, ..., "epsilon of the whole run: 1 is strong, 8 moderate, above 10 weak"),
    "delta": (
        float,
        ...,
        "delta, below 1/clients (calibrate: default the smaller of 1e-5 and 1/clients^1.1)",
    ),
    "rounds": (int, ..., "rounds of training, each with one release"),
    "clients": (int, ..., "clients in the population, N"),
    "cohort": (float, None, "expected clients per round, m (default: everyone)"),
    "noise-multiplier": (float, ..., "z: noise std on the sum of updates over the clip norm C"),
    "sampling-rate": (float, 1.0, "chance that a client takes part in a round, q"),
    "sampling": (
        accounting.SAMPLINGS,
        "poisson",
        "how a round's clients are drawn: a coin each, a fixed number, or nothing claimed",
    ),
    "adjacency": (
        accounting.ADJACENCIES,
        "add-or-remove",
        "neighbouring runs: one client is there or not, sends zeros or not, or has other data "
        "(calibrate: default by trust, add-or-remove for central, else zero-out)",
    ),
    "accountant": (accounting.ACCOUNTANTS, "pld", "who adds up the rounds"),
    "cap": (int, None, "hard cap on a Poisson cohort"),
    "trust": (
        TRUSTS,
        "central",
        "who sees single updates: the server; nobody (secure sums); nobody (noise on each)",
    ),
    "survivors": (int, None, "distributed trust: fewest honest clients in a released round"),
    "records": (int, ..., "records of all clients together"),
    "batch-size": (int, ..., "records per local step"),
    "local-epochs": (int, 1, "local epochs per round"),
    "user-sample-rate": (float, 1.0, "fraction of the clients in a round"),
}
MECHANISM = "delta noise-multiplier sampling-rate clients? sampling adjacency accountant cap"
PLAN = "epsilon delta? rounds clients cohort sampling trust adjacency? accountant cap survivors"
RECIPE = "epsilon delta rounds clients records batch-size local-epochs user-sample-rate"


def _calibrate(args: dict[str, Any]) -> tuple[dict[str, Any], str]:
    plan = calibrate(**args)
    words = plan.statement()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = plan.server_view()
    result = plan.to_dict() | {
        "epsilon": plan.epsilon(),
        "sampling_rate": plan.sampling_rate,
        "cohort_known": plan.cohort_known(),
        "server_view": old,  # the key's old name, for one version
        "statement": words,
    }
    # Rounded up: whoever copies this z has at least the noise that was calibrated.
    return result, f"noise multiplier z = {up(plan.noise_multiplier, DIGITS)}\n\n{words}"


def _epsilon(args: dict[str, Any]) -> tuple[dict[str, Any], str]:
    value = accounting.epsilon(**args)
    return args | {"epsilon": value}, f"epsilon = {up(value, DIGITS)}"


def _rounds(args: dict[str, Any]) -> tuple[dict[str, Any], str]:
    value = accounting.max_rounds(**args)
    return args | {"rounds": value}, f"rounds = {value}"


def _explain(args: dict[str, Any]) -> tuple[dict[str, Any], str]:
    from fldp.recipe import explain_recipe

    diagnosis = explain_recipe(**args)
    return diagnosis.to_dict(), str(diagnosis)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fldp",
        description="Differential privacy for federated learning: which noise, and what it buys.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fldp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for name, run, names, text in (
        ("calibrate", _calibrate, PLAN, "the noise for a target epsilon, in plain words"),
        ("epsilon", _epsilon, f"rounds {MECHANISM}", "the epsilon that a noise multiplier costs"),
        ("rounds", _rounds, f"epsilon {MECHANISM}", "how many rounds a budget allows"),
        ("explain", _explain, RECIPE, "what the recipe of Opacus issue 669 claims and gives"),
    ):
        sub = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.set_defaults(run=run)
        for option in names.split():
            kind, default, words = OPTIONS[option.rstrip("?")]
            default = None if option.endswith("?") else default
            if default is not None and default is not ...:
                words += f" (default {default})"
            typed: dict[str, Any] = (
                {"choices": kind}
                if isinstance(kind, tuple)
                else {"type": kind, "metavar": "N" if kind is int else "X"}
            )
            flag = f"--{option.rstrip('?')}"
            needed = default is ...
            default = None if needed else default
            sub.add_argument(flag, help=words, required=needed, default=default, **typed)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 0 on success, 2 with one line on stderr for bad input."""
    parser = _parser()
    args = vars(parser.parse_args(argv))
    run = args.pop("run", None)
    if run is None:
        parser.print_help()
        return 0
    as_json = args.pop("json")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            result, text = run(args)
        except ValueError as error:
            print(f"fldp: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"warning: {message}", file=sys.stderr)
    print(json.dumps(result) if as_json else text)
    return 0
