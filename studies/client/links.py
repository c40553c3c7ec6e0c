"""Links between a client and a server: a network namespace, its rate held by tbf, and a relay that delays.

The kernel's own delay (netem) isn't everywhere, so a relay (``python -m studies.client.links LISTEN PORT
DELAY``) holds every piece of data back for half of the round-trip time. It ends the client's TCP connection, so what a long way does to
TCP's windows isn't part of it. Needs root and ``ip`` and ``tc`` (Debian's iproute2).
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NAMESPACE, OUTSIDE, INSIDE = "trackserve", "tsoutside", "tsinside"
HERE, THERE = "10.203.17.1", "10.203.17.2"
BURST = {1: "256kb", 10: "2mb"}
"""What tbf lets through at once, by Gbit/s: enough for a hundred ticks of its clock a second."""
PIECE = 1 << 18


@contextlib.contextmanager
def link(gbit: int) -> Iterator[list[str]]:
    """Yield how to start a command beyond a link of this rate (Gbit/s), which reaches :data:`HERE`."""
    run("ip", "netns", "add", NAMESPACE)
    try:
        run(*("ip", "link", "add", OUTSIDE, "type", "veth", "peer", "name", INSIDE))
        run("ip", "link", "set", INSIDE, "netns", NAMESPACE)
        within = ["ip", "netns", "exec", NAMESPACE]
        for prefix, name, address in (([], OUTSIDE, HERE), (within, INSIDE, THERE)):
            run(*prefix, "ip", "address", "add", f"{address}/24", "dev", name)
            run(*prefix, "ip", "link", "set", name, "up")
            rate = ("rate", f"{gbit}gbit", "burst", BURST[gbit], "latency", "50ms")
            run(*prefix, "tc", "qdisc", "add", "dev", name, "root", "tbf", *rate)
        yield within
    finally:
        run("ip", "netns", "delete", NAMESPACE)


def run(*command: str) -> None:
    """Run a command; raises with what it says if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{' '.join(command)}: {done.stderr.strip()}"
        raise RuntimeError(message)


@contextlib.contextmanager
def relay(port: int, round_trip: float) -> Iterator[int]:
    """Yield a port at :data:`HERE` that reaches ``port`` of this machine half of ``round_trip`` (s) later."""
    command = [sys.executable, "-m", "studies.client.links", HERE, str(port), str(round_trip / 2)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


async def serve(listen: str, port: int, delay: float, listening: Callable[[int], None]) -> None:
    """Relay connections, both ways; ``listening`` is called with the port."""

    async def pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def send() -> None:
            while True:
                due, data = await held.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:  # this direction has ended, the other one may go on
                    sink.write_eof()
                    return
                sink.write(data)
                await sink.drain()

        sending = asyncio.create_task(send())
        with contextlib.suppress(ConnectionError):
            while data := await source.read(PIECE):
                held.put_nowait((loop.time() + delay, data))
        held.put_nowait((loop.time() + delay, b""))
        with contextlib.suppress(OSError):
            await sending

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port, limit=PIECE)
        await asyncio.gather(pass_on(reader, back), pass_on(there, writer))
        back.close()
        writer.close()

    server = await asyncio.start_server(accept, listen, 0, limit=PIECE)
    listening(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(
        serve(
            sys.argv[1],
            int(sys.argv[2]),
            float(sys.argv[3]),
            lambda port: print(port, flush=True),
        )
    )
