"""The server of one round: it passes messages on, adds up, and writes the sum.

    python examples/secagg/server.py --clients 20 --size 10000 --min-survivors 14 --colluders 1 \
        --output sum.npy

Whoever is silent for `--seconds`, hangs up, or sends what is refused has dropped out.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from wire import receive, send

from fldp.mechanism.release import SkippedRound
from fldp.mechanism.secagg import Answer, PublicKeys, Rules, SealedShares, Server, Upload

# What becomes of a connection whose client is gone, or is no client.
GONE = (OSError, EOFError, asyncio.TimeoutError, ValueError)
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
# Ready to be sent to a client; and what is done with its reply.
Make = Callable[[int], Sequence[bytes]]
Take = Callable[[int, list[bytes]], None]


class Federation:
    """The connections of one round."""

    def __init__(self, rules: Rules, seconds: float) -> None:
        self.rules = rules
        self.seconds = seconds
        self.server = Server(rules)
        self.streams: dict[int, Stream] = {}
        self.everybody = asyncio.Event()

    async def welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take a client's keys: from here on this connection is that client."""
        try:
            await send(writer, [self.rules.to_bytes()])
            (data,) = await asyncio.wait_for(receive(reader), self.seconds)
            keys = PublicKeys.from_bytes(data)
            self.server.add_keys(keys)
        except GONE as error:
            print(f"not a client: {error}", flush=True)
            writer.close()
            return
        self.streams[keys.sender] = (reader, writer)
        if len(self.streams) == self.rules.clients:
            self.everybody.set()

    async def step(self, name: str, make: Make, take: Take) -> None:
        """Send something to everybody that is still there, and take what each replies."""
        await asyncio.gather(*(self.ask(client, name, make, take) for client in [*self.streams]))
        print(f"{name}: {len(self.streams)} clients", flush=True)

    async def ask(self, client: int, name: str, make: Make, take: Take) -> None:
        reader, writer = self.streams[client]
        try:
            await send(writer, make(client))
            take(client, await asyncio.wait_for(receive(reader), self.seconds))
        except GONE as error:
            print(f"client {client} dropped out at the step '{name}': {error}", flush=True)
            writer.close()
            del self.streams[client]

    async def run(self) -> np.ndarray:
        """The sum over who uploads."""
        server = self.server
        try:
            await asyncio.wait_for(self.everybody.wait(), self.seconds)
        except asyncio.TimeoutError:
            print(f"keys: {len(self.streams)} clients came", flush=True)

        def keys(client: int) -> list[bytes]:
            return [key.to_bytes() for key in server.keys_for(client)]

        def add_shares(client: int, replies: list[bytes]) -> None:
            boxes = [SealedShares.from_bytes(data) for data in replies]
            check_senders(client, [box.sender for box in boxes])
            server.add_shares(boxes)

        def shares(client: int) -> list[bytes]:
            return [box.to_bytes() for box in server.shares_for(client)]

        def add_upload(client: int, replies: list[bytes]) -> None:
            upload = Upload.from_bytes(b"".join(replies))
            check_senders(client, [upload.sender])
            server.add_upload(upload)

        def add_answer(client: int, replies: list[bytes]) -> None:
            answer = Answer.from_bytes(b"".join(replies))
            check_senders(client, [answer.sender])
            server.add_answer(answer)

        await self.step("shares", keys, add_shares)
        await self.step("upload", shares, add_upload)
        request = server.request().to_bytes()
        await self.step("answer", lambda client: [request], add_answer)
        return server.total()


def check_senders(client: int, senders: Sequence[int]) -> None:
    """A message counts only under the name of whose connection it came through."""
    if {*senders} - {client}:
        raise ValueError(f"client {client} sent a message in another's name")


async def serve(rules: Rules, options: argparse.Namespace) -> int:
    federation = Federation(rules, options.seconds)
    listener = await asyncio.start_server(federation.welcome, "127.0.0.1", options.port)
    print(f"port {listener.sockets[0].getsockname()[1]}", flush=True)
    try:
        total = await federation.run()
    except SkippedRound as skipped:
        print(skipped, flush=True)
        return 1
    np.save(options.output, total)
    print(f"the sum over clients {list(federation.server.survivors)}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--size", type=int, required=True, help="integers in a vector")
    parser.add_argument("--bits", type=int, default=16)
    parser.add_argument("--min-survivors", type=int, required=True)
    parser.add_argument("--colluders", type=int, required=True)
    parser.add_argument("--port", type=int, default=0, help="0: any that is free")
    parser.add_argument("--seconds", type=float, default=30.0, help="how long a step may take")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    rules = Rules(
        clients=options.clients,
        size=options.size,
        bits=options.bits,
        min_survivors=options.min_survivors,
        colluders=options.colluders,
    )
    return asyncio.run(serve(rules, options))


if __name__ == "__main__":
    sys.exit(main())
