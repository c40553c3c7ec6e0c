"""The relay passes on every byte, both ways, half a round trip later."""

from __future__ import annotations

import asyncio
import time

from studies.client.links import PIECE, serve


async def served_by_relay(delay, data):
    """Return what an echo behind the relay answers, and how long it took."""

    async def echo(reader, writer):
        while piece := await reader.read(PIECE):
            writer.write(piece)
        writer.close()

    started = asyncio.get_running_loop().create_future()
    behind = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = behind.sockets[0].getsockname()[1]
    relaying = asyncio.create_task(serve("127.0.0.1", port, delay, started.set_result))
    reader, writer = await asyncio.open_connection("127.0.0.1", await started)
    began = time.monotonic()
    writer.write(data)
    writer.write_eof()
    answer = await reader.read(-1)
    took = time.monotonic() - began
    writer.close()
    relaying.cancel()
    behind.close()
    return answer, took


def test_the_relay_delays_and_loses_nothing():
    data = bytes(range(256)) * 4096
    answer, took = asyncio.run(served_by_relay(0.02, data))
    assert answer == data
    assert took >= 0.04
