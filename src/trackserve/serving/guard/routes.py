"""Envoy's routes: which requests go to which servers, and which are sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.serving.guard.pieces import typed

if TYPE_CHECKING:
    from trackserve.serving.guard.pieces import Config

ALIVE_PATH = "/alive"
"""Whether events are still answered: what Triton's readiness doesn't notice."""
CONTROL_PATHS = ("/metrics", "/fleet/status", ALIVE_PATH)
RETRY_HEADER = "x-trackserve-retry"
"""A client that sends it with any value lets the guard send a request again whose connection broke."""
GRPC_EVENTS = "/inference.GRPCInferenceService/ModelInfer"
HTTP_EVENTS = ".*/infer"


def routes() -> list[Config]:
    """Return the routes: the control's pages, then events by gRPC and HTTP, each with and without a retry.

    What asks for no tracks (readiness, metadata, statistics) has room of its own: it is answered when the
    queue is full, too.
    """
    control = [
        {"match": {"path": path}, "route": {"cluster": "control", "timeout": "30s"}}
        for path in CONTROL_PATHS
    ]
    asked = [{"name": RETRY_HEADER, "present_match": True}]
    events: dict[str, Config] = {
        "grpc": {"prefix": GRPC_EVENTS, "grpc": {}},
        "http": {"safe_regex": {"regex": HTTP_EVENTS}},
    }
    others: dict[str, Config] = {
        "grpc": {"prefix": "/", "grpc": {}},
        "http": {"prefix": "/"},
    }
    return [
        *control,
        *(
            {"match": match | more, "route": _route(cluster, asked=bool(more))}
            for cluster, match in events.items()
            for more in ({"headers": asked}, {})
        ),
        *(
            {"match": match, "route": {**_route(cluster, asked=False), "priority": "HIGH"}}
            for cluster, match in others.items()
        ),
    ]


def _route(cluster: str, *, asked: bool) -> Config:
    """Return how a request goes to the servers.

    What no server has begun to work on is sent again: a connection that can't be made, a refusal. A
    request that broke a connection may have ended the server, and would end the next one.
    """
    retry_on = ["connect-failure", "refused-stream", "reset-before-request"]
    retry_on.append("unavailable" if cluster == "grpc" else "retriable-status-codes")
    if asked:
        retry_on.append("reset")
    route: Config = {
        "cluster": cluster,
        # No limit here: the client's deadline is the limit.
        "timeout": "0s",
        "retry_policy": {
            "retry_on": ",".join(retry_on),
            # A server that has died has the fewest requests, and is chosen again until it is ejected:
            # there are more retries than failures that this takes.
            "num_retries": 4,
            "retry_back_off": {"base_interval": "0.02s", "max_interval": "0.2s"},
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": typed(
                        "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    ),
                }
            ],
            "host_selection_retry_max_attempts": 3,
        },
    }
    if cluster == "http":
        route["retry_policy"]["retriable_status_codes"] = [503]
    return route
