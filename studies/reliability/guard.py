"""What the guard costs: the same server with it and without, in turn within one run.

Without the guard the client speaks to tritonserver's own sockets, which only the server's user reaches. So the difference is
all that the guard adds: one more process that each byte goes through, the looks at the request, TCP in place of a Unix socket.
"""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tqdm import tqdm

from studies.clock import spread
from trackserve.contract.tensors import HITS, TRACK_FINDING
from trackserve.errors import ServerError
from trackserve.serving.service import serve
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trackserve.bundle import Bundle
    from trackserve.event import Float32
    from trackserve.serving.service import Service

FREE_PORTS = {"http_port": 0, "grpc_port": 0, "metrics_port": 0}
AT_ONCE = 4
LARGE = 5000
"""Hits from which on an event takes so long that few are sent."""
LIMITS = {"pu200_ratio": 1.05, "small_more_ms": 1.0, "throughput_ratio": 0.95}


def guard_cost(
    bundle: Bundle, events: Mapping[str, Float32], *, repeats: int, seconds: float
) -> dict[str, Any]:
    """Return times (ms) of each event with and without the guard, and events a second at a few at once.

    By protocol. ``events`` are ``[N, C]`` by kind; ``repeats`` how often a large one is sent each way, small
    ones 50 times as often; ``seconds`` how long one measurement of throughput lasts, made with small ones.
    """
    with serve(bundle, Settings(instances={"pipeline": 2}), **FREE_PORTS) as service:
        return {kind: _of_event(service, hits, repeats, seconds) for kind, hits in events.items()}


def _of_event(service: Service, hits: Float32, repeats: int, seconds: float) -> dict[str, Any]:
    small = len(hits) <= LARGE
    found = {
        protocol: {
            "latency": _latency(
                ways, f"{len(hits):,} hits, {protocol}", 50 * repeats if small else repeats
            )
        }
        for protocol, ways in _senders(service, hits).items()
    }
    if small:  # where an event is short the guard has most to do in a second
        lanes = [_senders(service, hits) for _ in range(AT_ONCE)]
        for protocol, each in found.items():
            each["throughput"] = _throughput([lane[protocol] for lane in lanes], protocol, seconds)
    return {"hits": len(hits), **found}


def _senders(service: Service, hits: Float32) -> dict[str, dict[str, Callable[[], Any]]]:
    """Return what sends the event by each protocol and way; the connections stay open until the process ends."""
    return {"grpc": _grpc_senders(service, hits), "http": _http_senders(service, hits)}


def _grpc_senders(service: Service, hits: Float32) -> dict[str, Callable[[], Any]]:
    sent = tritonclient.grpc.InferInput(HITS.name, list(hits.shape), HITS.dtype)
    sent.set_data_from_numpy(hits)
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    ways = {}
    for way, address in (
        ("guard", service.grpc_url.removeprefix("grpc://")),
        ("bare", f"unix:{service.server.sockets['grpc']}"),
    ):
        client = tritonclient.grpc.InferenceServerClient(
            address, channel_args=[*options, ("grpc.use_local_subchannel_pool", 1)]
        )
        ways[way] = lambda client=client: client.infer(TRACK_FINDING.name, [sent])
    return ways


def _http_senders(service: Service, hits: Float32) -> dict[str, Callable[[], Any]]:
    """Return the same for HTTP, with the binary form of KServe; the connections are Python's own both ways."""
    sent = tritonclient.http.InferInput(HITS.name, list(hits.shape), HITS.dtype)
    sent.set_data_from_numpy(hits)
    body, head = tritonclient.http.InferenceServerClient.generate_request_body([sent])
    headers = {"inference-header-content-length": str(head)}
    path = f"/v2/models/{TRACK_FINDING.name}/infer"

    def sender(connection: HTTPConnection) -> Callable[[], bytes]:
        def send() -> bytes:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != HTTPStatus.OK:
                raise ServerError(content.decode(errors="replace"))
            return content

        return send

    return {
        "guard": sender(HTTPConnection("127.0.0.1", service.ports["http"])),
        "bare": sender(_UnixConnection(str(service.server.sockets["http"]))),
    }


class _UnixConnection(HTTPConnection):
    """An HTTP connection to a socket in the file system."""

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.host)


def _latency(ways: dict[str, Callable[[], Any]], what: str, repeats: int) -> dict[str, Any]:
    for send in ways.values():
        for _ in range(2):
            send()
    spent: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for _ in tqdm(range(repeats), desc=what):
        for way in order:
            start = time.perf_counter()
            ways[way]()
            spent[way].append(time.perf_counter() - start)
        order.reverse()
    with_it, without = np.array(spent["guard"]), np.array(spent["bare"])
    return {
        "ms": {way: spread((1000 * np.array(each)).tolist()) for way, each in spent.items()},
        "more_ms": float(1000 * np.median(with_it - without)),
        "ratio": float(np.median(with_it / without)),
        "ratio_of_medians": float(np.median(with_it) / np.median(without)),
    }


def _throughput(
    senders: list[dict[str, Callable[[], Any]]], protocol: str, seconds: float
) -> dict[str, Any]:
    rates: dict[str, list[float]] = {"guard": [], "bare": []}
    order = list(rates)
    for _ in tqdm(range(6), desc=f"{protocol}, {AT_ONCE} at once"):
        for way in order:
            rates[way].append(_rate([each[way] for each in senders], seconds))
        order.reverse()
    return {
        "at_once": AT_ONCE,
        "events_per_s": {way: spread(each) for way, each in rates.items()},
        "ratio": float(np.median(np.divide(rates["guard"], rates["bare"]))),
    }


def _rate(senders: list[Callable[[], Any]], seconds: float) -> float:
    start = time.monotonic()

    def work(send: Callable[[], Any]) -> int:
        done = 0
        while time.monotonic() < start + seconds:
            send()
            done += 1
        return done

    with ThreadPoolExecutor(len(senders)) as pool:
        done = sum(pool.map(work, senders))
    return done / (time.monotonic() - start)
