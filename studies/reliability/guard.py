"""What the guard costs: the same server with it and without, in turn within one run.

Without the guard the client speaks to tritonserver's own sockets, which only the server's user reaches. So the difference is
all that the guard adds: one more process that each byte goes through, the looks at the request, TCP in place of a Unix socket.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc
from tqdm import tqdm

from studies.clock import spread
from trackserve.contract.tensors import HITS, TRACK_FINDING
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

    ``events`` are ``[N, C]`` by kind; ``repeats`` how often a large one is sent each way, small ones ten times
    as often; ``seconds`` how long one measurement of throughput lasts, which is made with small ones.
    """
    with serve(bundle, Settings(instances={"pipeline": 2}), **FREE_PORTS) as service:
        return {
            kind: {
                "hits": len(hits),
                "latency": _latency(service, hits, repeats if len(hits) > LARGE else 10 * repeats),
                # Where an event is short the guard has most to do in a second.
                **(
                    {} if len(hits) > LARGE else {"throughput": _throughput(service, hits, seconds)}
                ),
            }
            for kind, hits in events.items()
        }


def _senders(service: Service, hits: Float32) -> dict[str, Callable[[], Any]]:
    """Return what sends the event each way; the connections stay open until the process ends."""
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


def _latency(service: Service, hits: Float32, repeats: int) -> dict[str, Any]:
    ways = _senders(service, hits)
    for send in ways.values():
        for _ in range(3):
            send()
    spent: dict[str, list[float]] = {way: [] for way in ways}
    order = list(ways)
    for _ in tqdm(range(repeats), desc=f"{len(hits):,} hits, one at a time"):
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


def _throughput(service: Service, hits: Float32, seconds: float) -> dict[str, Any]:
    senders = [_senders(service, hits) for _ in range(AT_ONCE)]
    rates: dict[str, list[float]] = {"guard": [], "bare": []}
    order = list(rates)
    for _ in tqdm(range(6), desc=f"{len(hits):,} hits, {AT_ONCE} at once"):
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
