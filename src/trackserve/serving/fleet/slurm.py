"""A batch job for Slurm: a server on each node, one front, drained before the time is over.

The job's folder on the shared disk has ``servers`` (a file with the address of each), ``front`` (its address),
the secrets that front and servers share, and the logs.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackserve.errors import InputError, ServerError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DRAIN_SECONDS = 120
"""How long before its time is over a job begins to stop: front and servers each may take 30 s and a few more."""
_TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}")


@dataclass(frozen=True)
class Job:
    """What a job script is made of, checked when made.

    ``serving`` are options of server and front, ``front`` those of the front alone, ``server`` those of the
    servers alone. ``join`` is the folder of another job, whose front shall use the servers of this one as well.
    """

    nodes: int
    cpus: int
    time: str
    folder: Path
    port: int = 8001
    serving: Sequence[str] = ()
    front: Sequence[str] = ()
    server: Sequence[str] = ()
    sbatch: Sequence[str] = ()
    join: Path | None = None

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus"):
            if getattr(self, name) < 1:
                message = f"{name} is {getattr(self, name)}; expected at least 1"
                raise InputError(message)
        if not _TIME.fullmatch(self.time):
            message = (
                f"the time {self.time!r} is not one of Slurm; expected [days-]hours:minutes:seconds"
            )
            raise InputError(message)


def job_script(job: Job) -> str:
    """Return the script, to be given to ``sbatch``."""
    trackserve = shlex.join([sys.executable, "-m", "trackserve.cli"])
    words = {name: shlex.join(getattr(job, name)) for name in ("serving", "front", "server")}
    own = job.join is None
    home = shlex.quote(str(job.folder.absolute())) + "/$SLURM_JOB_ID"
    folder = home if job.join is None else shlex.quote(str(job.join.absolute()))
    lines = [
        "#!/bin/bash",
        "# A trackserve server on each node"
        + (" and a front; " if own else "; ")
        + "by `trackserve slurm`.",
        "#SBATCH --job-name=trackserve",
        f"#SBATCH --nodes={job.nodes}",
        f"#SBATCH --cpus-per-task={job.cpus}",
        "#SBATCH --ntasks-per-node=1",
        f"#SBATCH --time={job.time}",
        "# The servers that are left go on when a node fails.",
        "#SBATCH --no-kill",
        "# To the script alone: it lets front and servers answer what they have.",
        f"#SBATCH --signal=B:TERM@{DRAIN_SECONDS}",
        *(f"#SBATCH {option}" for option in job.sbatch),
        "set -u",
        "umask 077",
        f"folder={folder}",
        'mkdir -p "$folder/servers" "$folder/logs"',
        "front= servers=",
        _STOP,
        "trap stop TERM INT",
        *([_token()] if own else []),
        "# One server a task; each writes its address when it is ready, and removes it before it stops.",
        'srun --no-kill --kill-on-bad-exit=0 --output="$folder/logs/%N-$SLURM_JOB_ID.log" \\',
        f"  {trackserve} serve --address 0.0.0.0 --http-port 0 --grpc-port 0 --metrics-port 0 {words['serving']} \\",
        f'  {words["server"]} --tokens "$folder/tokens.toml" --register "$folder/servers" &',
        "servers=$!",
        *(
            [
                f"{trackserve} front --address 0.0.0.0 --port {job.port} {words['serving']} {words['front']} \\",
                '  --servers "$folder/servers" --server-token "$folder/token" --folder "/tmp/front-$SLURM_JOB_ID" \\',
                '  --register "$folder/front" > "$folder/logs/front.log" 2>&1 &',
                "front=$!",
            ]
            if own
            else []
        ),
        "# Whichever ends first ends the job.",
        'wait -n "$servers" ${front:+"$front"}',
        "stop",
    ]
    return "\n".join(lines) + "\n"


_STOP = """stop() {
  trap '' TERM INT
  # The front first: it takes nothing new, and the servers answer what it has.
  if [ -n "$front" ]; then
    kill -TERM "$front" 2>/dev/null
    wait "$front"
  else
    # Another job's front sends nothing to servers that have left its list, and they answer what they have.
    rm -f "$folder/servers/$SLURM_JOB_ID-"*
    sleep 30
  fi
  # Slurm signals every process of a server at once, so this comes last. The script itself isn't signalled.
  scancel --signal=TERM "$SLURM_JOB_ID" 2>/dev/null
  wait $servers
  if [ -n "$front" ]; then
    rm -rf "$folder/servers" "$folder/front" "$folder/token" "$folder/tokens.toml" "/tmp/front-$SLURM_JOB_ID"
  fi
  exit 0
}"""


def _token() -> str:
    """Return the lines that make a token for the front, which the servers ask for."""
    code = "from trackserve.serving.guard.tokens import new_token; print(*new_token())"
    return "\n".join(
        [
            "# Nobody but the front may send anything to the servers.",
            f"read -r token hash < <({shlex.join([sys.executable, '-c', code])})",
            'printf "%s\\n" "$token" > "$folder/token"',
            'printf "[front]\\nsha256 = \\"%s\\"\\n" "$hash" > "$folder/tokens.toml"',
        ]
    )


def submit(script: str) -> str:
    """Give a script to ``sbatch`` and return the job's number; raises :class:`ServerError` if it is refused."""
    try:
        run = subprocess.run(
            ["sbatch", "--parsable"], input=script, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        message = "sbatch was not found; submit from a machine of the cluster, or write the script with -o"
        raise ServerError(message) from None
    if run.returncode:
        message = f"sbatch refused the job: {run.stderr.strip()}"
        raise ServerError(message)
    return run.stdout.strip().partition(";")[0]
