"""Envoy's clusters: the servers, how one is chosen, and when one is out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trackserve.serving.guard.pieces import API, CONNECTIONS, WINDOW, at, pipe, typed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trackserve.serving.guard.pieces import Config, Front, Place

CLUSTERS = ("grpc", "http")
CONTROL = "control.sock"
"""The socket in the guard's folder at which whoever started it answers: metrics, and what a fleet says."""
OTHERS = 1024
"""Requests in flight that ask for no tracks."""
READY = "/v2/models/track_finding/ready"
ALL_READY = "/v2/health/ready"


def cluster(name: str, front: Front) -> Config:
    """Return how requests of a protocol are spread over the servers, and how many may be in flight."""
    own: Config = {"http_protocol_options": {}}
    if name == "grpc":
        own = {
            "http2_protocol_options": {
                "initial_stream_window_size": WINDOW,
                "initial_connection_window_size": 4 * WINDOW,
            }
        }
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {
            "eds_config": {
                "resource_api_version": "V3",
                "path_config_source": {"path": str(front.folder / f"{name}.json")},
            }
        },
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": max(front.most_bytes, 32 * 2**20),
        # Of all servers the one with the fewest requests in flight.
        "load_balancing_policy": {
            "policies": [
                {
                    "typed_extension_config": {
                        "name": "envoy.load_balancing_policies.least_request",
                        "typed_config": typed(
                            "extensions.load_balancing_policies.least_request.v3.LeastRequest",
                            selection_method="FULL_SCAN",
                        ),
                    }
                }
            ]
        },
        # With no server that is well, a request is answered at once: UNAVAILABLE. A server that is well
        # gets requests at once, not with the changes of the second that follows.
        "common_lb_config": {
            "healthy_panic_threshold": {"value": 0},
            "update_merge_window": "0s",
        },
        "ignore_health_on_host_removal": True,
        "health_checks": [_health_check(front)],
        "outlier_detection": _outliers(),
        "circuit_breakers": _room(front),
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config=own
            )
        },
        **(front.remote.of_cluster(front.folder, tls=front.tls) if front.remote else {}),
    }


def _health_check(front: Front) -> Config:
    # Ready is a server whose model answers; the check goes to its HTTP socket (in the endpoints). Another
    # machine's guard lets everybody ask whether all its models are ready.
    return {
        "http_health_check": {"path": ALL_READY if front.remote else READY},
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_interval": "0.25s",
        "timeout": "5s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
    }


def _outliers() -> Config:
    # Out is a server to which connections break. Refusals don't count: they are UNAVAILABLE or
    # 503, as good answers as any other.
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 2,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_local_origin_success_rate": 0,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "2s",
        "max_ejection_percent": 50,
    }


def _room(front: Front) -> Config:
    # As many requests as the servers work on and let wait. Retries may be a fifth of what is in
    # flight, or 32: what a server that died was working on, without making an overload much worse.
    return {
        "thresholds": [
            {
                "max_connections": CONNECTIONS,
                "max_pending_requests": CONNECTIONS,
                "max_requests": front.room,
                "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 32},
            },
            {
                "priority": "HIGH",
                "max_connections": CONNECTIONS,
                "max_pending_requests": CONNECTIONS,
                "max_requests": OTHERS,
            },
        ]
    }


def control_cluster(front: Front) -> Config:
    """Return where metrics and the state of a fleet are asked for."""
    endpoint = {"endpoint": {"address": pipe(front.folder / CONTROL)}}
    return {
        "name": "control",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "control",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def endpoints(cluster: str, sockets: Sequence[Mapping[str, Place]]) -> Config:
    """Return the resource that names the servers of a cluster by where they listen."""
    listed = [
        {
            "endpoint": {
                "address": at(each[cluster]),
                # gRPC's clients can't see whether a model is ready; HTTP's can.
                "health_check_config": {"address": at(each["http"])},
            }
        }
        for each in sockets
    ]
    return {
        "resources": [
            {
                "@type": f"{API}.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster,
                "endpoints": [{"lb_endpoints": listed}],
            }
        ]
    }
