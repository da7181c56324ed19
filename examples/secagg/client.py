"""One client of one round, in a process of its own.

    python examples/secagg/client.py --port 5000 --me 3 --min-survivors 14 --colluders 1

It knows from elsewhere, its plan, how many survivors it was promised, and leaves if the server
offers less. `--stop-before upload` waits there to be killed.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import numpy as np
from numpy.typing import NDArray
from wire import receive, send

from fldp.mechanism.secagg import Client, PublicKeys, Request, Rules, SealedShares

# Bits: the package's default.
SECURITY = 40
STEPS = ("shares", "upload", "answer")
FOREVER = 3600


def vector(rules: Rules, me: int) -> NDArray[np.int64]:
    """What this client adds: in a federation its rounded update with its share of the noise."""
    return np.random.default_rng(me).integers(0, 1 << rules.bits, rules.size)


def check(rules: Rules, options: argparse.Namespace) -> None:
    """ValueError if the server offers less than this client's plan promises."""
    promised = (options.min_survivors, options.colluders)
    is_weak = rules.security < SECURITY
    if is_weak or (rules.min_survivors, rules.colluders) != promised:
        raise ValueError(f"the plan says {promised} survivors and colluders, not {rules}")


def stop_before(step: str, options: argparse.Namespace) -> None:
    if options.stop_before == step:
        print(f"before {step}", flush=True)
        time.sleep(FOREVER)


async def take_part(options: argparse.Namespace) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", options.port)
    (data,) = await receive(reader)
    rules = Rules.from_bytes(data)
    check(rules, options)
    client = Client(rules, options.me)
    await send(writer, [client.advertise().to_bytes()])

    keys = [PublicKeys.from_bytes(data) for data in await receive(reader)]
    stop_before("shares", options)
    await send(writer, [box.to_bytes() for box in client.share(keys)])

    boxes = [SealedShares.from_bytes(data) for data in await receive(reader)]
    stop_before("upload", options)
    await send(writer, [client.upload(boxes, vector(rules, options.me)).to_bytes()])

    (data,) = await receive(reader)
    stop_before("answer", options)
    await send(writer, [client.unmask(Request.from_bytes(data)).to_bytes()])
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--me", type=int, required=True)
    parser.add_argument("--min-survivors", type=int, required=True)
    parser.add_argument("--colluders", type=int, required=True)
    parser.add_argument("--stop-before", choices=STEPS)
    try:
        asyncio.run(take_part(parser.parse_args()))
    except asyncio.IncompleteReadError:
        raise SystemExit("the server hung up: the round is over for this client") from None


if __name__ == "__main__":
    main()
