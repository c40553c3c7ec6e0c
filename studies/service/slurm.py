"""`trackserve slurm` under a real Slurm: the steps of docs/slurm.md, seen on one machine.

    python -m studies.service.slurm [--folder DIR]

Needs root, Debian's slurm-wlm and munge. Starts a controller and three nodes of this machine, submits a job of two
nodes, sends events all the time, lets a second job join and leave, and waits for the first to end by its time limit.
Takes five to six minutes, most of them spent waiting.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from studies.markdown import markdown
from studies.record import RESULTS, ROOT, write_json
from trackserve.client import Client
from trackserve.data import find_events
from trackserve.errors import ServerError, TrackserveError
from trackserve.serving.process import LOOPBACK, choose_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RESULT = RESULTS / "slurm.json"
EVENT = ROOT / "examples/events/pu20"
NODES = ("n1", "n2", "n3")
JOB_TIME = "0:06:00"
"""Slurm counts in minutes, and sends its signal up to a minute early."""
PAUSE = 0.1
"""Between two events (s): what is seen doesn't depend on how fast they are found."""
CONFIGURATION = """
ClusterName=trial
SlurmctldHost={host}({loopback})
SlurmctldPort={controller}
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/spool-%n
StateSaveLocation={folder}/state
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
{nodes}
PartitionName=main Nodes={names} Default=YES MaxTime=INFINITE State=UP
"""


class Cluster:
    """A Slurm of this machine, whose nodes are all this machine: a context manager that starts and stops it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        host = socket.gethostname()
        ports = choose_ports(LOOPBACK, dict.fromkeys(("controller", *NODES), 0))
        nodes = (
            f"NodeName={name} NodeHostname={host} NodeAddr={LOOPBACK} Port={ports[name]} CPUs=2 State=UNKNOWN"
            for name in NODES
        )
        text = CONFIGURATION.format(
            host=host,
            loopback=LOOPBACK,
            controller=ports["controller"],
            folder=self.folder,
            nodes="\n".join(nodes),
            names=",".join(NODES),
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "state").mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        files = {"socket": "munge.sock", "key-file": "munge.key", "pid-file": "munge.pid"}
        files |= {"log-file": "munge.log", "seed-file": "munge.seed"}
        options = [f"--{name}={self.folder / file}" for name, file in files.items()]
        try:
            self._start("munged", "--foreground", "--force", *options)
            self._wait((self.folder / "munge.sock").exists, "munged")
            self._start("slurmctld", "-D")
            for name in NODES:
                (self.folder / f"spool-{name}").mkdir()
                self._start("slurmd", "-D", "-N", name)
            idle = [f"{name} idle" for name in NODES]
            self._wait(lambda: self.ask("sinfo", "-hN", "-o", "%N %T").split("\n") == idle, "nodes")
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def ask(self, *command: str) -> str:
        """Return what one of Slurm's commands prints."""
        run = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        return run.stdout.strip()

    def jobs(self) -> list[str]:
        """Return the numbers of the jobs that have not ended."""
        return self.ask("squeue", "-h", "-o", "%i").split()

    def submit(self, *options: str) -> str:
        """Submit by ``trackserve slurm`` and return the job's number."""
        command = [sys.executable, "-m", "trackserve.cli", "slurm", *options]
        run = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise ServerError(run.stderr)
        return run.stdout.split()[2].rstrip(";")

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}.out").open("ab") as log:
            self._running.append(
                subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
            )

    def _wait(self, done: Callable[[], bool], what: str) -> None:
        wait_for(done, f"Slurm's {what} (see {self.folder})", 60)

    def _stop(self) -> None:
        for job in self.jobs():
            self.ask("scancel", job)
        for process in reversed(self._running):
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


class Load:
    """A client that sends the same event again and again, and counts."""

    def __init__(self, address: str) -> None:
        (source,) = find_events(EVENT)
        self.event = source.read().hits
        self._address, self._stop = address, threading.Event()
        self.answered, self.wrong = 0, 0
        self.errors: list[str] = []
        self._first: Any = None
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Send no more."""
        self._stop.set()
        self._thread.join()

    def counts(self) -> dict[str, int]:
        """Return what became of the events so far."""
        return {"answered": self.answered, "wrong": self.wrong, "errors": len(self.errors)}

    def _send(self) -> None:
        with Client(self._address, timeout=20, tries=8) as client:
            while not self._stop.wait(PAUSE):
                try:
                    labels = client.find_tracks(self.event).labels
                except TrackserveError as error:
                    self.errors.append(str(error))
                    continue
                if self._first is None:
                    self._first = labels
                self.wrong += not np.array_equal(labels, self._first)
                self.answered += 1


def wait_for(done: Callable[[], Any], what: str, seconds: float) -> None:
    """Wait until something is so; raises :class:`ServerError` if it isn't in time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            message = f"{what}: not within {seconds:g} s"
            raise ServerError(message)
        time.sleep(0.1)


def addresses(folder: Path) -> list[str]:
    """Return the addresses in a folder of them."""
    found = []
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # it has just been removed
            found.append(path.read_text().strip())
    return found


def trial(cluster: Cluster, jobs: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Go through the steps, and yield what was seen at each."""
    common = ["--cpus", "2", "--folder", str(jobs), "--submit"]
    common += [f"--sbatch=--output={jobs}/%j.out"]
    job = cluster.submit("--nodes", "2", "--time", JOB_TIME, "--port", "0", *common)
    place, began = jobs / job, time.monotonic()
    wait_for(lambda: addresses(place / "front"), "the front's address", 120)
    wait_for(lambda: len(addresses(place / "servers")) == 2, "two servers", 120)
    (front,) = addresses(place / "front")
    modes = {oct((place / name).stat().st_mode & 0o777) for name in ("token", "tokens.toml")}
    yield "two nodes serve", {"seconds": round(time.monotonic() - began, 1), "modes": sorted(modes)}
    yield "a client without the token asks a server", {"answer": refusal(place)}
    with Load(front) as load:
        wait_for(lambda: load.answered > 50, "answers", 60)
        yield "events are answered", load.counts()
        yield from _grow_and_shrink(cluster, place, common, load, front)
        killed, since = kill_node(NODES[1], place), time.monotonic()
        wait_for(lambda: well(front) == 1, "one server", 30)
        seconds = round(time.monotonic() - since, 1)
        yield "a node is killed", {"seconds": seconds, "processes": killed, **load.counts()}
        wait_for(lambda: not addresses(place / "front"), "the end", 400)
        left = cluster.ask("squeue", "-h", "-j", job, "-o", "%L")
        load.stop()
        yield "the front leaves its folder", {**load.counts(), "time left": left}
    began = time.monotonic()
    wait_for(lambda: job not in cluster.jobs(), "the job's end", 200)
    state = cluster.ask("scontrol", "show", "job", job)
    yield (
        "the job is over",
        {
            "seconds": round(time.monotonic() - began, 1),
            "state": state.partition("JobState=")[2].split()[0],
            "files left": sorted(p.relative_to(place).as_posix() for p in place.rglob("*")),
            "processes left": processes(place),
        },
    )


def _grow_and_shrink(
    cluster: Cluster, place: Path, common: list[str], load: Load, front: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    began = time.monotonic()
    more = cluster.submit("--nodes", "1", "--time", "1:00:00", "--join", str(place), *common)
    wait_for(lambda: well(front) == 3, "a third server", 120)
    yield "a job joins", {"seconds": round(time.monotonic() - began, 1), **load.counts()}
    began = time.monotonic()
    cluster.ask("scancel", "--batch", "--signal=TERM", more)
    wait_for(lambda: more not in cluster.jobs(), "the joined job's end", 120)
    seconds = round(time.monotonic() - began, 1)
    wait_for(lambda: well(front) == 2, "two servers again", 10)
    yield "it leaves", {"seconds": seconds, **load.counts()}


def well(front: str) -> int:
    """Return how many servers a front finds well."""
    command = [sys.executable, "-m", "trackserve.cli", "status", front]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.stdout.count("  well")


def refusal(place: Path) -> str:
    """Return what a server answers to a client that has no token."""
    try:
        with Client(addresses(place / "servers")[0], tries=1) as client:
            return f"{len(client.description.columns)} columns"
    except TrackserveError as error:
        return re.sub(r"\S+:\d+", "HOST:PORT", str(error))


def kill_node(node: str, place: Path) -> int:
    """Kill everything of a job on one of the nodes, as if its power went; return how many processes that were."""
    marks = f"SLURMD_NODENAME={node}".encode(), f"SLURM_JOB_ID={place.name}".encode()
    killed = 0
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            if set(marks) <= set(path.read_bytes().split(b"\0")):
                os.kill(int(path.parent.name), signal.SIGKILL)
                killed += 1
    return killed


def processes(place: Path) -> int:
    """Return how many processes of a job there are, by its folder in their arguments."""
    found = 0
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            found += str(place).encode() in path.read_bytes()
    return found


def table(record: dict[str, Any]) -> str:
    """Return the steps as a table."""
    rows = [("step", "at, s", "took, s", "events answered, wrong, failed", "seen")]
    for step in record["steps"]:
        counts = [str(step[name]) for name in ("answered", "wrong", "errors") if name in step]
        apart = {"step", "at", "seconds", "answered", "wrong", "errors"}
        seen = (f"{name}: {_words(value)}" for name, value in step.items() if name not in apart)
        took = f"{step['seconds']:.0f}" if "seconds" in step else ""
        rows.append((step["step"], f"{step['at']:.0f}", took, ", ".join(counts), "; ".join(seen)))
    return markdown(rows)


def _words(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def main() -> None:
    """Run the trial and keep what was seen."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="for logs; kept (default: a temporary one)")
    parser.add_argument("--output", type=Path, default=RESULT, metavar="FILE")
    options = parser.parse_args()
    if os.geteuid() or not all(map(shutil.which, ("munged", "slurmctld", "slurmd"))):
        sys.exit("this needs root, slurm-wlm and munge: apt-get install slurm-wlm munge")
    with contextlib.ExitStack() as stack:
        folder = options.folder
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm-")))
        folder = folder.absolute()
        (folder / "jobs").mkdir(parents=True)
        cluster = stack.enter_context(Cluster(folder))
        version, began, seen = cluster.ask("sinfo", "--version"), time.monotonic(), []
        for step, found in trial(cluster, folder / "jobs"):
            seen.append({"step": step, "at": round(time.monotonic() - began, 1), **found})
            print(seen[-1], flush=True)
    write_json(options.output, {"slurm": version, "nodes": len(NODES), "steps": seen})


if __name__ == "__main__":
    main()
