"""Three hosts with a server each, one with the front, clients elsewhere: network namespaces on one machine.

Hosts are joined by a bridge. One after the other is cut off, slowed down, replaced, added and taken away while
clients ask; each request must be answered, and rightly. Needs root and ``ip`` and ``tc`` (Debian's iproute2).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.client.links import run
from trackserve.client import AsyncClient
from trackserve.engines.registry import open_pipeline
from trackserve.errors import TrackserveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trackserve.bundle import Bundle
    from trackserve.event import Hits, Int64

BRIDGE, NETWORK = "tsbridge", "10.203.18"
HERE = f"{NETWORK}.1"
HOSTS, FRONT = 3, 9
PORT = 8001
NEW_BUNDLE = "trackml-fast"
"""What servers are rolled to."""
AT_ONCE = 6
"""Requests in flight: each server works on one and lets one wait."""
TIMEOUT, START = 120.0, 60.0
"""Seconds of a request with all its tries; seconds in which a server starts, or is seen to be well again."""


@dataclass
class Host:
    """A namespace on the bridge, in which one command runs at a time."""

    number: int
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def name(self) -> str:
        """The namespace's and its outer interface's name."""
        return f"tshost{self.number}"

    @property
    def address(self) -> str:
        """Its address on the bridge."""
        return f"{NETWORK}.{10 + self.number}"

    def join(self) -> None:
        """Make it, and join it to the bridge."""
        inside = ["ip", "netns", "exec", self.name]
        run("ip", "netns", "add", self.name)
        run(
            "ip",
            "link",
            "add",
            self.name,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self.name,
        )
        run("ip", "link", "set", self.name, "master", BRIDGE, "up")
        run(*inside, "ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        run(*inside, "ip", "link", "set", "eth0", "up")
        run(*inside, "ip", "link", "set", "lo", "up")

    def link(self, state: str) -> None:
        """Cut it off (``down``), or join it again (``up``): packets are lost without a word."""
        run("ip", "link", "set", self.name, state)

    def start(self, log: Path, *command: str) -> None:
        """Run a command of trackserve."""
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", self.name),
                    *(sys.executable, "-m", "trackserve.cli", *command),
                ],
                stdout=out,
                stderr=out,
            )

    def stop(self) -> None:
        """Stop its command as an operator does."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None


@dataclass
class Trial:
    """The hosts, and the requests that are asked meanwhile."""

    folder: Path
    bundle: Bundle
    hits: Hits
    old: Int64
    new: Int64
    hosts: list[Host] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def front(self) -> str:
        """Where clients connect."""
        return f"{NETWORK}.{10 + FRONT}:{PORT}"

    def serve(self, host: Host, bundle: Path | str) -> None:
        """Start a server, which leaves its address in the front's list once it takes requests."""
        host.start(
            self.folder / f"{host.name}.log",
            *("serve", "--address", host.address, "--bundle", str(bundle)),
            *("--instances", "1", "--threads", "1", "--max-queue", "4"),
            *("--register", str(self.folder / "servers")),
        )

    def well(self) -> int:
        """Return how many servers the front calls well."""
        with contextlib.suppress(OSError):
            page = urllib.request.urlopen(f"http://{self.front}/metrics", timeout=5).read().decode()
            if found := re.search(
                r'trackserve_front_servers\{[^}]*state="well"[^}]*\} (\d+)', page
            ):
                return int(found[1])
        return 0

    def wait(self, servers: int) -> float:
        """Wait until this many servers are well; returns the seconds."""
        began = time.monotonic()
        while self.well() != servers:
            if time.monotonic() - began > START:
                logs = "\n".join(p.read_text()[-500:] for p in self.folder.glob("*.log"))
                message = f"{self.well()} servers are well after {START:g} s, not {servers}\n{logs}"
                raise RuntimeError(message)
            time.sleep(0.1)
        return time.monotonic() - began

    def phase(
        self, name: str, seconds: float, act: Callable[[], dict[str, float]], *expected: Int64
    ) -> None:
        """Ask for at least these ``seconds`` while ``act`` does something; add a row of what became of it.

        Right are the labels that are ``expected``: those of the bundles that are served meanwhile.
        """
        row = asyncio.run(self._ask(seconds, act, expected))
        print(name, row, flush=True)
        self.rows.append({"phase": name, **row})

    async def _ask(
        self, seconds: float, act: Callable[[], dict[str, float]], expected: Sequence[Int64]
    ) -> dict[str, Any]:
        acted = asyncio.create_task(asyncio.to_thread(act))
        began, latency = time.monotonic(), []
        lost = wrong = 0

        async def ask(client: AsyncClient) -> None:
            nonlocal lost, wrong
            while time.monotonic() - began < seconds or not acted.done():
                sent = time.monotonic()
                try:
                    labels = (await client.find_tracks(self.hits)).labels
                except TrackserveError as error:
                    print(error)
                    lost += 1
                    continue
                latency.append(time.monotonic() - sent)
                wrong += not any(np.array_equal(labels, one) for one in expected)

        async with AsyncClient(self.front, timeout=TIMEOUT, concurrency=AT_ONCE) as client:
            await asyncio.gather(*(ask(client) for _ in range(AT_ONCE)))
        whole = time.monotonic() - began
        return {
            **{"requests": len(latency) + lost, "lost": lost, "wrong": wrong},
            **{"rate": len(latency) / whole, "longest": max(latency)},
            **{f"p{p}": float(np.percentile(latency, p)) for p in (50, 99)},
            **(await acted),
        }


def try_hosts(bundle: Bundle, hits: Hits, seconds: float) -> dict[str, Any]:
    """Return a row for each thing that happens to the hosts."""
    with tempfile.TemporaryDirectory() as name, bridge():
        folder = Path(name)
        (folder / "servers").mkdir()
        old, new = (open_pipeline(one).find_tracks(hits).labels for one in (bundle, NEW_BUNDLE))
        trial = Trial(folder, bundle, hits, old, new, [Host(n) for n in range(HOSTS)])
        front = Host(FRONT)
        try:
            for host in (*trial.hosts, front):
                host.join()
            for host in trial.hosts:
                trial.serve(host, bundle.path)
            front.start(
                folder / "front.log",
                *("front", "--servers", str(folder / "servers"), "--bundle", str(bundle.path)),
                *("--instances", "1", "--max-queue", "4", "--address", front.address),
                *("--port", str(PORT), "--folder", str(folder / "front")),
            )
            trial.wait(HOSTS)
            run_phases(trial, front, seconds)
        finally:
            for host in (front, *trial.hosts):
                host.stop()
        return {"rows": trial.rows, "at once": AT_ONCE}


def run_phases(trial: Trial, front: Host, seconds: float) -> None:
    """Let everything happen that happens to hosts, one after the other."""
    one, two, three = trial.hosts
    trial.phase("three hosts", seconds, lambda: {}, trial.old)

    def cut_off() -> dict[str, float]:
        one.link("down")
        noticed = trial.wait(HOSTS - 1)
        time.sleep(seconds / 4)
        one.link("up")
        return {"noticed": noticed, "back": trial.wait(HOSTS)}

    def slow_link() -> dict[str, float]:
        limit = ("root", "tbf", "rate", "5mbit", "burst", "64kb", "latency", "400ms")
        run("tc", "qdisc", "add", "dev", two.name, *limit)
        time.sleep(seconds)
        run("tc", "qdisc", "delete", "dev", two.name, "root")
        return {}

    def partition() -> dict[str, float]:
        front.link("down")
        time.sleep(5)
        front.link("up")
        return {"back": trial.wait(HOSTS)}

    def roll() -> dict[str, float]:
        began = time.monotonic()
        for host in trial.hosts:
            host.stop()
            trial.serve(host, NEW_BUNDLE)
            time.sleep(1)
            trial.wait(HOSTS)
        return {"took": time.monotonic() - began}

    def scale_down() -> dict[str, float]:
        began = time.monotonic()
        three.stop()
        trial.wait(HOSTS - 1)
        return {"took": time.monotonic() - began}

    def scale_up() -> dict[str, float]:
        trial.serve(three, trial.bundle.path)
        return {"took": trial.wait(HOSTS)}

    trial.phase("a host cut off, then joined again", seconds, cut_off, trial.old)
    trial.phase("5 Mbit/s to one host", seconds, slow_link, trial.old)
    trial.phase("the front cut off for 5 s", seconds, partition, trial.old)
    trial.phase("each host rolled to another bundle", seconds, roll, trial.old, trial.new)
    trial.phase("one host taken away", seconds, scale_down, trial.new)
    trial.phase("one host added", seconds, scale_up, trial.new, trial.old)


@contextlib.contextmanager
def bridge() -> Iterator[None]:
    """Join what is made meanwhile; takes all of it away in the end."""
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    try:
        run("ip", "address", "add", f"{HERE}/24", "dev", BRIDGE)
        run("ip", "link", "set", BRIDGE, "up")
        yield
    finally:
        for number in (*range(HOSTS), FRONT):
            subprocess.run(
                ["ip", "netns", "delete", Host(number).name], check=False, capture_output=True
            )
        run("ip", "link", "delete", BRIDGE)
