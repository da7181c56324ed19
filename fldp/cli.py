"""The command line: ``fldp calibrate | epsilon | rounds | explain | report``; thin."""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

from fldp import __version__, accounting
from fldp._settings import (
    ACCOUNTANT,
    ADJACENCY,
    CAP,
    LIMITS,
    MIN_SURVIVORS,
    SAMPLING,
    TRUST,
    Setting,
)
from fldp._text import up
from fldp.plan.client import PrivacyPlan, calibrate
from fldp.plan.report import FACTS

__all__ = ["main"]

# What argparse found, and what --json prints: names of ours, and values of many kinds.
_Args = dict[str, Any]
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
  fldp report plan.json --client phone --label
      a guarantee to publish (plan.json: plan.to_json(), or calibrate's --json)

In Python:
  import fldp; print(fldp.calibrate(epsilon=8, rounds=60, clients=480).statement())
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


@dataclass(frozen=True)
class _Option:
    """What an option takes: `words` for --help, and a default, unless it must be given."""

    words: str
    kind: type = str
    choices: tuple[str, ...] | None = None
    default: float | str | None = None
    needed: bool = False
    # What leaving it away means, where that is no value.
    otherwise: str = ""


def _of(setting: Setting, default: str | None = None) -> _Option:
    """The option of a setting; `default` where the table has none."""
    each = "; ".join(f"{value}: {words}" for value, words in setting.values.items())
    words = f"{setting.meaning}. {each}" if each else setting.meaning
    return _Option(
        words,
        kind=str if setting.values else int,
        choices=setting.allowed or None,
        default=setting.default or default,
        otherwise=setting.otherwise,
    )


def _must(words: str, kind: type) -> _Option:
    return _Option(words, kind, needed=True)


OPTIONS = {
    "epsilon": _must("epsilon of the whole run: 1 is strong, 8 moderate, above 10 weak", float),
    "delta": _Option(
        "delta, below 1/clients",
        float,
        needed=True,
        otherwise="the smaller of 1e-5 and 1/clients^1.1",
    ),
    "rounds": _must("rounds of training, each with one release", int),
    "clients": _must("clients in the population, N", int),
    "cohort": _Option("expected clients per round, m", float, otherwise="everyone"),
    "noise-multiplier": _must("z: noise std on the sum of updates over the clip norm C", float),
    "sampling-rate": _Option("chance that a client takes part in a round, q", float, default=1.0),
    "sampling": _of(SAMPLING),
    "adjacency": _of(ADJACENCY, default="add-or-remove"),
    "accountant": _of(ACCOUNTANT),
    "cap": _of(CAP),
    "trust": _of(TRUST),
    "min-survivors": _of(MIN_SURVIVORS),
    **{setting.name: _of(setting) for setting in LIMITS},
    "records": _must("records of all clients together", int),
    "batch-size": _must("records per local step", int),
    "local-epochs": _Option("local epochs per round", int, default=1),
    "user-sample-rate": _Option("fraction of the clients in a round", float, default=1.0),
}
# The options of each command; a question mark: what it is follows from the rest, unless given.
MECHANISM = "delta noise-multiplier sampling-rate clients? sampling adjacency accountant cap"
PLAN = (
    "epsilon delta? rounds clients cohort sampling trust adjacency? accountant cap min-survivors "
    "separation participations correlation"
)
RECIPE = "epsilon delta rounds clients records batch-size local-epochs user-sample-rate"


class _OldName(argparse.Action):
    """An option under its old name, for one version: `const` is the new one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        print(
            f"warning: {option_string} is {self.const} now; the old name goes with the next "
            "version",
            file=sys.stderr,
        )
        setattr(namespace, self.dest, values)


def _calibrate(args: _Args) -> tuple[_Args, str]:
    plan = calibrate(**args)
    words = plan.statement()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        old = plan.server_view()
    result = plan.to_dict() | {
        "epsilon": plan.epsilon(),
        "sampling_rate": plan.sampling_rate,
        "cohort_known": plan.cohort_known(),
        # Old names of two keys, for one version.
        "server_view": old,
        "survivors": plan.min_survivors,
        "statement": words,
    }
    # Rounded up: whoever copies this z has at least the noise that was calibrated.
    return result, f"noise multiplier z = {up(plan.noise_multiplier, DIGITS)}\n\n{words}"


def _epsilon(args: _Args) -> tuple[_Args, str]:
    value = accounting.epsilon(**args)
    return args | {"epsilon": value}, f"epsilon = {up(value, DIGITS)}"


def _rounds(args: _Args) -> tuple[_Args, str]:
    value = accounting.max_rounds(**args)
    return args | {"rounds": value}, f"rounds = {value}"


def _explain(args: _Args) -> tuple[_Args, str]:
    from fldp.recipe import explain_recipe

    diagnosis = explain_recipe(**args)
    return diagnosis.to_dict(), str(diagnosis)


def _report(args: _Args) -> tuple[_Args, str]:
    path, label = args.pop("plan"), args.pop("label")
    facts = {name: value for name, value in args.items() if value is not None}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no plan in JSON ({error}): give plan.to_json()") from None
    if isinstance(found, dict) and "statement" in found:
        # What `calibrate --json` prints has more than the plan in it.
        names = {field.name for field in fields(PrivacyPlan)}
        found = {name: value for name, value in found.items() if name in names}
    record = PrivacyPlan.from_dict(found).report(**facts)
    return record.to_dict(), record.label() if label else record.to_markdown()


def _report_parser(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(run=_report)
    sub.add_argument("plan", metavar="PLAN", help="a file with plan.to_json()")
    sub.add_argument("--label", action="store_true", help="a page for people who are no experts")
    sub.add_argument("--clip-norm", metavar="X", type=float, help="the clip norm C")
    sub.add_argument("--group", metavar="N", type=int, help="clients of one person, at most")
    for name, words in FACTS.items():
        sub.add_argument(f"--{name}", metavar="TEXT", help=words)
    sub.add_argument("--json", action="store_true", help="print one JSON object")


def _add(parser: argparse.ArgumentParser, name: str) -> None:
    """Add an option; with a question mark at the end of its name it may be left away."""
    option = OPTIONS[name.rstrip("?")]
    flag = f"--{name.rstrip('?')}"
    default = option.default
    needed = option.needed
    if name.endswith("?"):
        default = None
        needed = False
    words = option.words
    if default is not None:
        words += f" (default {default})"
    elif option.otherwise and not needed:
        words += f" (default: {option.otherwise})"
    metavar = None
    if option.choices is None:
        metavar = "N" if option.kind is int else "X"
    parser.add_argument(
        flag,
        help=words,
        type=option.kind,
        choices=option.choices,
        metavar=metavar,
        default=default,
        required=needed,
    )
    if flag == "--min-survivors":
        parser.add_argument(
            "--survivors",
            dest="min_survivors",
            help=argparse.SUPPRESS,
            type=int,
            action=_OldName,
            const=flag,
        )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="fldp",
        description="Differential privacy for federated learning: which noise, and what it buys.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fldp {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for command, run, names, text in (
        ("calibrate", _calibrate, PLAN, "the noise for a target epsilon, in plain words"),
        ("epsilon", _epsilon, f"rounds {MECHANISM}", "the epsilon that a noise multiplier costs"),
        ("rounds", _rounds, f"epsilon {MECHANISM}", "how many rounds a budget allows"),
        ("explain", _explain, RECIPE, "what the recipe of Opacus issue 669 claims and gives"),
    ):
        sub = commands.add_parser(command, help=text, description=f"{text[0].upper()}{text[1:]}.")
        sub.set_defaults(run=run)
        for name in names.split():
            _add(sub, name)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
    text = "a guarantee to publish: a record, and a page for people who are no experts"
    _report_parser(commands.add_parser("report", help=text, description=f"{text.capitalize()}."))
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        The arguments behind the name of the program; None: those of this process.

    Returns
    -------
    int
        0 on success; 2 for bad input, which one line on stderr names.

    Raises
    ------
    SystemExit
        Where argparse ends the program: help, version, and options that there are not.

    Examples
    --------
    >>> words = "rounds --epsilon 8 --delta 1e-5 --noise-multiplier 6.01"
    >>> main(words.split())
    rounds = 100
    0
    """
    parser = _parser()
    args = vars(parser.parse_args(argv))
    run = args.pop("run", None)
    if run is None:
        parser.print_help()
        return 0
    as_json = args.pop("json")
    # What the library warns of is for the user, in a line each; what is deprecated is for us.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            result, text = run(args)
        except ValueError as error:
            # All that is wrong with what was given is a ValueError; anything else is a fault here.
            print(f"fldp: {' '.join(str(error).split())}", file=sys.stderr)
            return 2
    for message in dict.fromkeys(str(warning.message) for warning in caught):
        print(f"warning: {message}", file=sys.stderr)
    _say(json.dumps(result) if as_json else text)
    return 0


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # Whoever reads has enough, as `head` does. What is left is for nobody, also at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
