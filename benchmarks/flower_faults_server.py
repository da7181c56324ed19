"""F1 to F10 and F12, the faults of Flower's wrappers on the server: each measures its number."""

from __future__ import annotations

import math

import numpy as np
from flwr.app import RecordDict
from flwr.serverapp.exception import InconsistentMessageReplies
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideAdaptiveClipping as Adaptive,
)
from flwr.serverapp.strategy import (
    DifferentialPrivacyServerSideFixedClipping as Fixed,
)
from flwr.serverapp.strategy import FedAdam, FedAvg

from benchmarks.flower_grid import record, reply_of
from benchmarks.flower_round import Finding, along, averaging, moved, one_round, values

# Coordinates from which a standard deviation is told to 1.4 percent (two standard errors).
MANY = 10_000
# A deviation that is off by more than this is a fault: seven standard errors.
OFF = 0.05
# An update that is nearly nothing: of exactly nothing the wrappers make an error (F8).
NEXT_TO_NOTHING = 1e-9


def spread_of(release: np.ndarray) -> float:
    """The deviation of the noise: the first coordinate holds the update, the others nothing."""
    return float(np.std(release[1:]))


def runaway() -> Finding:
    """F1: from which clip to which, in 30 rounds of clients whose updates have norms near 1."""
    rounds = 30
    dice = np.random.default_rng(0)
    numbers = {}
    for begin in (0.1, 0.9, 1.1, 10.0):
        strategy = Adaptive(averaging(), 1.0, 20, initial_clipping_norm=begin)
        for _ in range(rounds):
            # Five percent about 1.
            norms = dice.normal(1, 0.05, 20)
            moved(strategy, *(along(0, norm) for norm in norms))
        numbers[f"{begin:g}"] = strategy.clipping_norm
    away = [abs(math.log(end)) > abs(math.log(float(start))) for start, end in numbers.items()]
    return Finding(
        "The adaptive clip runs away",
        "lowers C where updates lie above it and raises it where they lie below: the sign is wrong",
        "C after 30 rounds: " + ", ".join(f"{a} → {b:.3g}" for a, b in numbers.items()),
        "each → 1, the median norm",
        numbers,
        all(away),
    )


def next_clip() -> Finding:
    """F2: the noise of a round whose clip moves."""
    clients = 100
    strategy = Adaptive(averaging(), 1.0, clients, initial_clipping_norm=1.0, clip_norm_lr=1.0)
    # Far beyond the clip: it moves by its rate.
    release = moved(strategy, *[along(0, 10.0, MANY)] * clients)
    measured = spread_of(release)
    needed = strategy.noise_multiplier / clients
    return Finding(
        "The noise is scaled by the next clip",
        "updates C first, and draws the noise for updates that were clipped to the old one",
        f"deviation {measured:.4f} (ratio {measured / needed:.3f})",
        f"{needed:.4f}",
        {"measured": measured, "needed": needed, "ratio": measured / needed},
        measured < needed * (1 - OFF),
    )


def count_noise() -> Finding:
    """F3, derived: what the noise on the update and on the count of bits amount to together."""
    promised, clients = 1.0, 100
    strategy = Adaptive(averaging(), promised, clients)
    # A client changes the count of bits 0 and 1 by up to 1.
    together = strategy.noise_multiplier**-2 + strategy.clipped_count_stddev**-2
    delivered = together**-0.5
    return Finding(
        "The count of clipped updates gets half its noise",
        "splits z as if a client changed the count by 1/2, which holds for bits of ±1/2, and "
        "noises a count of bits 0 and 1; sound only where the number of replies is public",
        f"z = {delivered:.3f} together",
        f"{promised:.3f}",
        {"measured": delivered, "needed": promised},
        delivered < promised * (1 - 1e-9),
        "derived",
    )


def heavy() -> Finding:
    """F4: how far a client moves the mean that says it has 991 of 1,000 examples."""
    clients = 10
    strategy = Fixed(averaging(), 0.0, 1.0, clients)
    replies = [reply_of(record(w=along(0, 1.0)), examples=991)]
    others = [reply_of(record(w=along(1, NEXT_TO_NOTHING))) for _ in range(clients - 1)]
    arrays, _ = one_round(strategy, along(0, 0.0), replies + others)
    measured = float(np.linalg.norm(values(arrays)))
    needed = 1 / clients
    return Finding(
        "A weighted mean with the sensitivity of an unweighted one",
        "weighs by num-examples, which clients say themselves, and draws noise for C/m",
        f"one of {clients} clients moves the mean by {measured:.3f} C",
        f"{needed:g} C",
        {"measured": measured, "needed": needed},
        measured > needed * (1 + OFF),
    )


def missing() -> Finding:
    """F5: the noise where 2 of 10 clients reply."""
    asked, came = 10, 2
    strategy = Fixed(averaging(), 1.0, 1.0, asked)
    measured = spread_of(moved(strategy, *[along(0, 1.0, MANY)] * came))
    needed = 1 / came
    return Finding(
        "Too little noise where clients are missing",
        "divides the sum by those that replied and the noise by those that were asked; it warns",
        f"{came} of {asked} replies: deviation {measured:.3f}",
        f"{needed:.3f}",
        {"measured": measured, "needed": needed},
        measured < needed * (1 - OFF),
    )


def after_the_optimiser() -> Finding:
    """F6: how far one client moves what FedAdam makes of the mean."""
    clients, size = 10, 1000
    everywhere = np.ones(size, np.float32)
    small = NEXT_TO_NOTHING * everywhere
    releases = []
    for one in (everywhere, small):
        inner = FedAdam(fraction_evaluate=0.0)
        strategy = Fixed(inner, 0.0, 1.0, clients)
        releases.append(moved(strategy, one, *[small] * (clients - 1)))
    measured = float(np.linalg.norm(releases[0] - releases[1]))
    needed = 1 / clients
    return Finding(
        "The noise comes after the server's optimiser",
        "lets FedAdam step on the mean without noise, which it also keeps, and adds noise for C/m "
        "to the stepped model",
        f"one client moves the model by {measured:.3f} C",
        f"{needed:g} C",
        {"measured": measured, "needed": needed},
        measured > needed * (1 + OFF),
    )


def not_a_number() -> Finding:
    """F7: how far two clients' mean moves, of which one sends NaN, or infinity, beside 1e6."""
    far, near = along(1, 1e6), along(1, NEXT_TO_NOTHING)
    releases = {}
    for name, bad in (("NaN", np.nan), ("infinity", np.inf)):
        sent = far.copy()
        sent[0] = bad
        with np.errstate(invalid="ignore"):
            releases[name] = moved(Fixed(averaging(), 0.0, 1.0, 2), sent, near)
    measured = float(releases["NaN"][1])
    poisoned = float(np.isnan(releases["infinity"]).sum())
    return Finding(
        "NaN switches the clip off",
        "takes min(1, C/NaN) = 1 for the factor; of infinity it makes NaN for everybody",
        f"NaN in one coordinate, 1e6 in another: moved by {measured:.1e} C; "
        f"infinity: {poisoned:g} of 2 coordinates of the model NaN",
        "at most 0.5 C; none NaN",
        {"measured": measured, "needed": 0.5, "coordinates_lost_to_infinity": poisoned},
        measured > 1,
    )


def raised_by(update: np.ndarray) -> str:
    """The name of the error that a round ends with, "" where it does not."""
    try:
        moved(Fixed(averaging(), 0.0, 1.0, 1), update)
    except (ArithmeticError, TypeError) as error:
        return type(error).__name__
    return ""


def nothing() -> Finding:
    """F8: a client whose update is zero."""
    error = raised_by(along(0, 0.0))
    return Finding(
        "An update of zero ends the run",
        "divides C by its norm; whether a run ends tells of a client's data",
        error or "no error",
        "no error",
        {"runs_ended": float(bool(error))},
        bool(error),
    )


def shapeless() -> Finding:
    """F9: a parameter without dimensions, and a buffer of whole numbers."""
    measured = float(moved(Fixed(averaging(), 0.0, 1.0, 1), np.array(5.0, np.float32)))
    error = raised_by(np.array([5, 0]))
    return Finding(
        "A parameter without dimensions is never clipped",
        "scales a copy of it; a buffer of whole numbers ends the run",
        f"5.0 at C = 1 stays {measured:.3f}; int64: {error or 'no error'}",
        "1.000; a refusal before the run",
        {"measured": measured, "needed": 1.0, "runs_ended": float(bool(error))},
        measured > 1 + OFF,
    )


class Keeping(FedAvg):
    """A strategy that takes replies of any form, and keeps them."""

    kept: RecordDict

    def aggregate_train(self, server_round, replies):  # type: ignore[no-untyped-def]
        (reply,) = replies
        self.kept = reply.content
        return None, None


def two_records() -> Finding:
    """F10: a reply of two records, of which each is clipped by itself."""
    inner = Keeping(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
    refused = False
    for strategy in (inner, averaging()):
        reply = reply_of(record(w=along(0, 5.0)))
        reply["more"] = record(w=along(1, 5.0))
        try:
            one_round(Fixed(strategy, 0.0, 1.0, 1), along(0, 0.0), [reply])
        except InconsistentMessageReplies:
            refused = True
    parts = [part["w"].numpy() for part in inner.kept.array_records.values()]
    measured = float(np.linalg.norm(np.concatenate(parts)))
    return Finding(
        "Each record of a reply is clipped by itself",
        "clips every ArrayRecord to C; FedAvg refuses replies of more than one",
        ("refused by FedAvg; " if refused else "") + f"norm {measured:.3f} C where a strategy of "
        "one's own takes two",
        "1.000 C",
        {"measured": measured, "needed": 1.0, "refused_by_fedavg": float(refused)},
        not refused,
        "unreachable" if refused else "run",
    )


def metrics() -> Finding:
    """F12: what of a client's loss is released."""
    strategy = Fixed(averaging(), 1.0, 1.0, 2)
    replies = [reply_of(record(w=along(0, 1.0)), loss=loss) for loss in (1e9, 0.0)]
    _, found = one_round(strategy, along(0, 0.0), replies)
    measured = 0.0 if found is None else float(found["loss"])
    return Finding(
        "Clients' metrics are released as they are",
        "averages and logs them, without a clip and without noise",
        f"losses 1e9 and 0: {measured:.1e} released",
        "nothing, or a release with an account",
        {"measured": measured, "needed": 0.0},
        measured > 1,
    )
