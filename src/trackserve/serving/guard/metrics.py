"""The metrics page: those of the servers and the guard's own, in Prometheus' text."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from trackserve.serving.sockets import ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from trackserve.serving.guard.front import Guard

METRICS_SECONDS = 10.0
GUARD_REQUESTS = "trackserve_guard_requests_total"
HANDSHAKES = "trackserve_guard_handshakes_refused_total"
_SAMPLE = re.compile(r"^([A-Za-z_:][\w:]*)(?:\{(.*)\})? (\S+)$")
_OWN = re.compile(r"^envoy_guard_requests\{(.*)\} (\d+)$", re.MULTILINE)
_REFUSED = re.compile(r"\.ssl\.(fail_verify_\w+|connection_error): (\d+)$", re.MULTILINE)


def server_metrics(socket: Path) -> str:
    """Return a server's metrics; nothing while it doesn't answer."""
    try:
        status, text = ask(socket, "GET", "/metrics", timeout=METRICS_SECONDS)
    except OSError:
        return ""
    return text if status == 200 else ""


def merged(pages: Mapping[str, str]) -> str:
    """Return the metrics of several servers as one page, each sample with the label ``server``."""
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for server, page in pages.items():
        for line in page.splitlines():
            if line.startswith("#"):
                name = line.split(" ", 3)[2]
                head = heads.setdefault(name, [])
                if line not in head:
                    head.append(line)
            elif found := _SAMPLE.match(line):
                name, labels, value = found.groups()
                every = ",".join(filter(None, (f'server="{server}"', labels)))
                samples.setdefault(name, []).append(f"{name}{{{every}}} {value}")
    lines: list[str] = []
    for name, listed in samples.items():
        lines += [*heads.get(name, []), *listed]
    return "\n".join(lines) + "\n" if lines else ""


def guard_metrics(guard: Guard) -> str:
    """Return what the guard counted: requests by outcome and client, and refused TLS handshakes."""
    text = guard.admin("/stats/prometheus?filter=guard.requests")
    lines = [
        f"# HELP {GUARD_REQUESTS} requests at the guard by what became of them, and by client",
        f"# TYPE {GUARD_REQUESTS} counter",
        *(f"{GUARD_REQUESTS}{{{_labels(found)}}} {n}" for found, n in _OWN.findall(text)),
        f"# HELP {HANDSHAKES} TLS connections refused at the guard, by reason",
        f"# TYPE {HANDSHAKES} counter",
        *_counted(_REFUSED.findall(guard.admin("/stats?filter=listener.*ssl"))),
    ]
    return "\n".join(lines) + "\n"


def _labels(found: str) -> str:
    """Return Envoy's labels without what it takes for a prefix of its own."""
    pairs = re.findall(r'(\w+)="([^"]*)"', found)
    return ",".join(f'{name.removeprefix("envoy_")}="{value}"' for name, value in sorted(pairs))


def _counted(found: Iterable[tuple[str, str]]) -> list[str]:
    """Return a sample a reason; each address that the guard listens on has its own counters."""
    sums: dict[str, int] = {}
    for reason, number in found:
        name = reason.removeprefix("fail_verify_")
        sums[name] = sums.get(name, 0) + int(number)
    return [f'{HANDSHAKES}{{reason="{name}"}} {number}' for name, number in sorted(sums.items())]
