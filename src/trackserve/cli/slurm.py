"""``trackserve slurm``: servers on the nodes of a batch job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.cli.guard import add_guard, chosen_guard
from trackserve.cli.options import new_command
from trackserve.cli.output import check_place, written
from trackserve.errors import InputError

if TYPE_CHECKING:
    import argparse

    from trackserve.cli.options import Subparsers
    from trackserve.serving.fleet.slurm import Job


def add(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = new_command(
        commands,
        "slurm",
        run,
        "Write or submit a Slurm job: a server on each node, one front, drained before the time is over.",
        epilog="""example:
  trackserve slurm --nodes 4 --cpus 32 --time 8:00:00 --tokens tokens.toml --submit -- --instances 32""",
    )
    parser.add_argument("--nodes", type=int, required=True, metavar="N", help="nodes of the job")
    parser.add_argument("--cpus", type=int, required=True, metavar="N", help="processors of a node")
    parser.add_argument(
        "--time", required=True, metavar="[D-]H:M:S", help="how long the job may last"
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("slurm"),
        metavar="DIR",
        help="on a disk that all nodes share; each job has a folder of its own in it",
    )
    parser.add_argument("--port", type=int, default=8001, help="of the front; 0 picks a free one")
    parser.add_argument(
        "--join",
        type=Path,
        metavar="DIR",
        help="folder of a job that runs: add servers to its front, and start none",
    )
    parser.add_argument(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="further option of sbatch, such as --sbatch=--partition=long (repeatable)",
    )
    parser.add_argument(
        "--server-ca", type=Path, metavar="PEM", help="TLS to the servers as well; its authority"
    )
    add_guard(parser)
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("-o", "--output", type=Path, metavar="FILE", help="write the script")
    place.add_argument("--submit", action="store_true", help="give it to sbatch")
    parser.add_argument(
        "serving", nargs="*", metavar="-- OPTION", help="options of `serve`: bundle, instances ..."
    )


def run(options: argparse.Namespace) -> None:
    """Write or submit the job."""
    from trackserve.serving.fleet.slurm import job_script, submit

    script = job_script(job_of(options))
    if options.submit:
        number = submit(script)
        folder = options.join or options.folder.absolute() / number
        print(f"submitted job {number}; the front's address will be in {folder / 'front'}")
        return
    check_place(options.output)
    with written(options.output) as file:
        file.write(script)
    print(f"wrote {options.output}; submit it with: sbatch {options.output}")


def job_of(options: argparse.Namespace) -> Job:
    """Return the job that the options ask for."""
    from trackserve.serving.fleet.slurm import Job

    chosen_guard(options)  # which raises for what doesn't go together
    if options.join is not None and not (options.join / "servers").is_dir():
        message = f"{options.join} is not the folder of a job that runs: it has no folder `servers`"
        raise InputError(message)
    if options.server_ca is not None and options.certificate is None:
        message = "TLS to the servers needs their certificate and key as well"
        raise InputError(message)
    named = {
        name: ["--" + name.replace("_", "-"), str(getattr(options, name).absolute())]
        for name in ("certificate", "key", "client_ca", "tokens", "server_ca")
        if getattr(options, name) is not None
    }
    front = [word for words in named.values() for word in words]
    server = [*named["certificate"], *named["key"]] if "server_ca" in named else []
    if options.max_request_bytes is not None:
        front += ["--max-request-bytes", str(options.max_request_bytes)]
    return Job(
        options.nodes,
        options.cpus,
        options.time,
        options.folder,
        options.port,
        options.serving,
        front,
        server,
        options.sbatch,
        options.join,
    )
