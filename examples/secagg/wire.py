"""Messages over a stream: how many, then each with its length before it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

# Four bytes for a number; nobody may make the other side hold more than this.
NUMBER = 4
MOST_BYTES = 1 << 28


async def send(writer: asyncio.StreamWriter, messages: Sequence[bytes]) -> None:
    """Send some messages together."""
    writer.write(len(messages).to_bytes(NUMBER, "big"))
    for message in messages:
        writer.write(len(message).to_bytes(NUMBER, "big"))
        writer.write(message)
    await writer.drain()


async def receive(reader: asyncio.StreamReader) -> list[bytes]:
    """What was sent together; ValueError where it would be too much to hold."""
    messages: list[bytes] = []
    left = MOST_BYTES
    for _ in range(await number(reader)):
        length = await number(reader)
        # An empty message costs as well, or there could be any number of them.
        left -= length + NUMBER
        if left < 0:
            raise ValueError(f"more than {MOST_BYTES} bytes at once")
        messages.append(await reader.readexactly(length))
    return messages


async def number(reader: asyncio.StreamReader) -> int:
    """The next four bytes."""
    return int.from_bytes(await reader.readexactly(NUMBER), "big")
