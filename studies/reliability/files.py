"""Hostile files and bundles: each is read or refused with one sentence, in a process that lives on."""

from __future__ import annotations

import contextlib
import gzip
import io
import multiprocessing
import random
import resource
import shutil
import signal
import tempfile
import time
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from studies.reliability.mutate import changed_bytes
from trackserve.bundle import BUNDLE_FILE, read_bundle
from trackserve.data import find_events
from trackserve.data.tables import write_table
from trackserve.errors import TrackserveError
from trackserve.pipeline.check import check_answers

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from trackserve.bundle import Bundle

SPAWN = multiprocessing.get_context("spawn")
HANG_SECONDS = 10
CELLS = (
    "", "nan", "inf", "-inf", "1e999", "-1", "0", "1", "7", "2147483648", "9223372036854775808",
    "1e-400", "x", "0x1f", '"', '"a,b"', "1,2", "\0", "é", "\u0661", " 1 ", "1_000", "True", "-0",
    "9" * 400, "1e5", "3.7", "None", "#", "=",
)  # fmt: skip
COLUMNS = ("hit_id", "x", "y", "z", "volume_id", "layer_id", "module_id")
TOML_VALUES = (
    "0", "-1", "1e999", "nan", "true", '""', "[]", "{}", "10000000000000000000000", "1e-300",
    '"../x"', '"/etc/passwd"', '"x"', "[1, 2]", "[[[[]]]]", "1979-05-27", "0x7fffffffffffffff",
    "[" * 2000 + "]" * 2000, '"\\u0000"', "0.5",
)  # fmt: skip


class _Hang(BaseException):
    """Not an error that anything would catch."""


@contextlib.contextmanager
def _within(seconds: int) -> Any:
    def over(*_: object) -> None:
        raise _Hang

    signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def hostile_file(rng: random.Random, folder: Path) -> None:
    """Write an event's files that are wrong in a few places, in one of the forms that are read."""
    name = "event000000001-hits"
    form = rng.choice(("csv", "csv", "gz", "zip", "parquet"))
    if form == "parquet":
        _hostile_parquet(rng, folder / f"{name}.parquet")
        return
    text = _hostile_text(rng)
    if form == "csv":
        (folder / f"{name}.csv").write_bytes(text)
        if rng.random() < 0.2:
            beside = f"event000000001-{rng.choice(('cells', 'truth', 'particles'))}.csv"
            (folder / beside).write_bytes(changed_bytes(rng, text))
        return
    if form == "gz":
        place, packed = folder / f"{name}.csv.gz", gzip.compress(text, 1)
    else:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"{rng.choice(('', 'a/', '../'))}{name}.csv", text)
        place, packed = folder / "events.zip", made.getvalue()
    place.write_bytes(changed_bytes(rng, packed) if rng.random() < 0.7 else packed)


def _hostile_text(rng: random.Random) -> bytes:
    rows = [
        f"{i + 1},{rng.uniform(-1e3, 1e3):.3f},{rng.uniform(-1e3, 1e3):.3f},{rng.uniform(-3e3, 3e3):.2f},7,2,{i}"
        for i in range(rng.choice((0, 1, 3, 20)))
    ]
    rows.insert(0, ",".join(COLUMNS))
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        kind, at = rng.randrange(6), rng.randrange(len(rows))
        cells = rows[at].split(",")
        if kind <= 2:
            cells[rng.randrange(len(cells))] = rng.choice(CELLS)
            rows[at] = ",".join(cells)
        elif kind == 3:
            rows[at] = ",".join(cells[: rng.randrange(len(cells) + 1)])
        elif kind == 4 or len(rows) == 1:
            rows.insert(at, rows[at])
        else:
            del rows[at]
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(rows).encode() + rng.choice((b"", b"\n"))
    return changed_bytes(rng, text) if rng.random() < 0.2 else text


def _hostile_parquet(rng: random.Random, path: Path) -> None:
    count, kinds = rng.choice((0, 1, 50)), ("f4", "f8", "i8", "i2")
    table = {c: np.arange(count).astype(rng.choice(kinds)) for c in COLUMNS if rng.random() < 0.98}
    write_table(path, table)
    if rng.random() < 0.8:
        path.write_bytes(changed_bytes(rng, path.read_bytes()))


def read_file(folder: Path) -> None:
    """Read what lies in a folder, as `find` does."""
    inside = next(iter(folder.glob("*.zip")), folder)
    for source in find_events(inside):
        source.read(truth=False)


def hostile_bundle(rng: random.Random, folder: Path, sound: Path) -> None:
    """Write a bundle that is wrong in a few places: its description or a network."""
    shutil.copytree(sound, folder, dirs_exist_ok=True)
    description = folder / BUNDLE_FILE
    if rng.random() < 0.6:
        lines = description.read_text(encoding="utf-8").splitlines()
        for _ in range(rng.choice((1, 1, 2, 3))):
            at = rng.randrange(len(lines))
            kind = rng.randrange(4)
            if kind <= 1 and "=" in lines[at]:
                lines[at] = f"{lines[at].partition('=')[0]}= {rng.choice(TOML_VALUES)}"
            elif kind == 2:
                del lines[at]
            else:
                lines.insert(
                    at,
                    rng.choice(
                        (lines[at], f"odd = {rng.choice(TOML_VALUES)}", "[odd]", "[[neighbours]]")
                    ),
                )
        content = "\n".join(lines).encode()
        description.write_bytes(changed_bytes(rng, content) if rng.random() < 0.2 else content)
    if rng.random() < 0.6:
        network = rng.choice(sorted(folder.glob("*.onnx")))
        content = network.read_bytes()
        kind = rng.randrange(8)
        if kind == 0:
            network.unlink()
        elif kind == 1:
            network.write_bytes(content[: rng.randrange(len(content))])
        else:
            # Most of a network is numbers; its structure is at both ends.
            end = rng.choice((400, len(content)))
            network.write_bytes(changed_bytes(rng, content[:end]) + content[end:])


def read_hostile_bundle(folder: Path) -> None:
    """Read a bundle and try it, as `bundle check` does."""
    check_answers(read_bundle(folder))


@dataclass(frozen=True)
class Job:
    """What is made and read: files, or bundles like the one at ``sound``."""

    kind: str
    seed: int
    sound: Path | None
    kept: Path


def _work(job: Job, first: int, seconds: float, result: Connection) -> None:
    """Make and read one after the other; what is being read is noted before, for a process that dies of it."""
    kind, sound = job.kind, job.sound
    counts: Counter[str] = Counter()
    faults: list[str] = []
    end, number = time.monotonic() + seconds, first
    with tempfile.TemporaryDirectory(prefix="trackserve-fuzz-") as scratch:
        while time.monotonic() < end:
            folder = Path(scratch, "event")
            folder.mkdir()
            rng = random.Random(f"{job.seed} {kind} {number}")
            try:
                with _within(HANG_SECONDS):
                    if sound is None:
                        hostile_file(rng, folder)
                    else:
                        hostile_bundle(rng, folder, sound)
                    result.send(("begun", number))
                    (read_file if sound is None else read_hostile_bundle)(folder)
                counts["read"] += 1
            except TrackserveError as error:
                counts["refused"] += 1
                if "\n" in str(error):
                    faults.append(f"{kind} {number}: a message of several lines: {error}"[:400])
            except _Hang:
                faults.append(f"{kind} {number}: not read within {HANG_SECONDS} s")
            except Exception as error:
                faults.append(f"{kind} {number}: {type(error).__name__}: {error}"[:400])
            if faults and len(faults) <= 20 and faults[-1].startswith(f"{kind} {number}:"):
                shutil.copytree(folder, job.kept / f"{kind}-{number}", dirs_exist_ok=True)
            shutil.rmtree(folder)
            number += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    result.send(("done", (number, dict(counts), faults, peak)))


def _campaign(job: Job, seconds: float) -> dict[str, Any]:
    """Work in a process; go on behind what ended one."""
    end, next_one = time.monotonic() + seconds, 0
    counts: Counter[str] = Counter()
    faults: list[str] = []
    peak, begun, made = 0.0, -1, 0
    while (left := end - time.monotonic()) > 0:
        here, there = SPAWN.Pipe(duplex=False)
        process = SPAWN.Process(target=_work, args=(job, next_one, left, there))
        process.start()
        there.close()
        started = next_one
        try:
            while True:
                if not here.poll(HANG_SECONDS + 30):
                    process.kill()
                what, value = here.recv()
                if what == "begun":
                    begun = value
                    continue
                number, became, found, mb = value
                counts.update(became)
                faults += found
                peak = max(peak, mb)
                made += number - started
                next_one = number
                break
        except EOFError:
            process.join()
            faults.append(f"{job.kind} {begun}: its process ended with {process.exitcode}")
            made += begun + 1 - started
            next_one = begun + 1
        process.join()
    return {
        "made": made,
        **counts,
        "peak_mb": peak,
        "fault_count": len(faults),
        "faults": faults[:100],
    }


def file_campaign(bundle: Bundle, *, minutes: float, seed: int, kept: Path) -> dict[str, Any]:
    """Read hostile files for half of the time and hostile bundles for the other half; return what became of them."""
    kept.mkdir(parents=True, exist_ok=True)
    return {
        "files": _campaign(Job("file", seed, None, kept), 30 * minutes),
        "bundles": _campaign(Job("bundle", seed, bundle.path, kept), 30 * minutes),
    }
