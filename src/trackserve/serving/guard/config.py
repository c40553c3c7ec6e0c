"""Envoy's configuration: the one front before a server, several servers, or those of a cluster.

Its limits are in the filter's own files: the Lua files beside this one look at each request before a
server parses it. What is said here holds for every request, whatever is in it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LUA = Path(__file__).with_name("lua")
CLUSTERS = ("grpc", "http")
CONTROL = "control.sock"
"""The socket in the guard's folder at which whoever started it answers: metrics, and what a fleet says."""
CONTROL_PATHS = ("/metrics", "/fleet/status")
RETRY_HEADER = "x-trackserve-retry"
"""A client that sends it with any value lets the guard send a request again whose connection broke."""
WINDOW = 16 * 2**20
LARGEST_WINDOW = 2**31 - 1
CONNECTIONS = 4096
STREAMS = 256
HEAP = 2 * 2**30
"""Bytes of memory at which Envoy takes no more requests: more than enough for events that wait."""
GRPC_EVENTS = "/inference.GRPCInferenceService/ModelInfer"
HTTP_EVENTS = ".*/infer"
OTHERS = 1024
"""Requests in flight that ask for no tracks."""
READY = "/v2/models/track_finding/ready"
_API = "type.googleapis.com/envoy"

Config = dict[str, Any]


@dataclass(frozen=True)
class Front:
    """What Envoy listens on and lets in.

    ``room`` is how many requests of a protocol may be in flight, ``most_bytes`` the largest request.
    """

    folder: Path
    address: str
    ports: Sequence[int]
    room: int
    most_bytes: int
    tls: bool = False
    client_certificates: bool = False
    access_log: Path | None = None


def envoy_config(front: Front) -> Config:
    """Return the configuration; the servers come by the watched files ``grpc.json`` and ``http.json``."""
    return {
        "node": {"id": "guard", "cluster": "trackserve"},
        "admin": {"address": _pipe(front.folder / "admin.sock")},
        "overload_manager": _overload(),
        "static_resources": {
            "listeners": [_listener(front)],
            "clusters": [*(_cluster(name, front) for name in CLUSTERS), _control_cluster(front)],
        },
    }


def _overload() -> Config:
    """Refuse before memory or connections run out."""
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": _typed(
                    "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    max_heap_size_bytes=HEAP,
                ),
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": _typed(
                    "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                    max_active_downstream_connections=CONNECTIONS,
                ),
            },
        ],
        "actions": [
            {
                "name": "envoy.overload_actions.stop_accepting_requests",
                "triggers": [
                    {
                        "name": "envoy.resource_monitors.fixed_heap",
                        "threshold": {"value": 0.9},
                    }
                ],
            }
        ],
    }


def _listener(front: Front) -> Config:
    first, *more = [
        {"socket_address": {"address": front.address, "port_value": port}} for port in front.ports
    ]
    chain: Config = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _connection_manager(front),
            }
        ]
    }
    if front.tls:
        chain["transport_socket"] = _tls(front)
    return {
        "name": "requests",
        "address": first,
        "enable_reuse_port": False,
        "additional_addresses": [{"address": each} for each in more],
        # A request is looked at as a whole, so it must fit.
        "per_connection_buffer_limit_bytes": front.most_bytes + 4096,
        "filter_chains": [chain],
    }


def _tls(front: Front) -> Config:
    """TLS with the certificates of watched files, so that they can be renewed."""

    def secret(name: str) -> Config:
        path = {"path": str(front.folder / f"{name}.json")}
        return {
            "name": name,
            "sds_config": {"resource_api_version": "V3", "path_config_source": path},
        }

    common: Config = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [secret("server")],
    }
    if front.client_certificates:
        common["validation_context_sds_secret_config"] = secret("clients")
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": _typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context=common,
            # A resumed session would not say whether its certificate was validated.
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
        ),
    }


def _connection_manager(front: Front) -> Config:
    return _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="requests",
        codec_type="AUTO",
        use_remote_address=True,
        # The client's request id is the one in the logs, here and in the server.
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        server_header_transformation="PASS_THROUGH",
        normalize_path=True,
        # The Lua files refuse these with a sentence.
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        max_request_headers_kb=32,
        common_http_protocol_options={
            "headers_with_underscores_action": "REJECT_REQUEST",
            "max_headers_count": 64,
        },
        # A request that is not complete after a minute holds memory for nothing.
        request_headers_timeout="10s",
        request_timeout="60s",
        stream_idle_timeout="0s",
        http2_protocol_options={
            "max_concurrent_streams": STREAMS,
            # What a stream may send before it is read: a whole request, and no more.
            "initial_stream_window_size": min(max(front.most_bytes + 4096, 65_536), LARGEST_WINDOW),
            "initial_connection_window_size": 4 * WINDOW,
        },
        # The Lua files make a sentence of Envoy's own answers, by this header.
        local_reply_config={
            "mappers": [
                {
                    "filter": {
                        "status_code_filter": {
                            "comparison": {
                                "op": "GE",
                                "value": {"default_value": 400, "runtime_key": "none"},
                            }
                        }
                    },
                    "headers_to_add": [
                        {"header": {"key": "x-guard-details", "value": "%RESPONSE_CODE_DETAILS%"}}
                    ],
                }
            ]
        },
        access_log=[*_access_log(front.access_log), _counters()],
        http_filters=[
            {
                "name": "guard",
                "typed_config": _typed(
                    "extensions.filters.http.lua.v3.Lua",
                    default_source_code={"inline_string": _script(front.folder)},
                ),
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": _typed("extensions.filters.http.router.v3.Router"),
            },
        ],
        route_config={
            "virtual_hosts": [{"name": "servers", "domains": ["*"], "routes": _routes()}]
        },
    )


def _script(folder: Path) -> str:
    path, settings = json.dumps(str(LUA / "?.lua")), json.dumps(str(folder / "limits.json"))
    return f"package.path = {path}\nSETTINGS = {settings}\nrequire('guard')\n"


def _access_log(path: Path | None) -> list[Config]:
    if path is None:
        return []
    fields = {
        "time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID)%",
        "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
        "server": "%UPSTREAM_HOST%",
        "tries": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "status": "%RESPONSE_CODE%",
        "grpc_status": "%GRPC_STATUS%",
        "flags": "%RESPONSE_FLAGS%",
        "outcome": "%DYNAMIC_METADATA(guard:outcome)%",
        "client": "%DYNAMIC_METADATA(guard:client)%",
        "milliseconds": "%DURATION%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
    }
    logger = {
        "name": "envoy.access_loggers.file",
        "typed_config": _typed(
            "extensions.access_loggers.file.v3.FileAccessLog",
            path=str(path),
            log_format={"json_format": fields},
        ),
    }
    return [logger]


def _counters() -> Config:
    """Count requests by what became of them and by client."""
    tags = [
        {"name": name, "value_format": f"%DYNAMIC_METADATA(guard:{name})%"}
        for name in ("outcome", "client")
    ]
    return {
        "name": "envoy.access_loggers.stats",
        "typed_config": _typed(
            "extensions.access_loggers.stats.v3.Config",
            stats_scope={"prefix": "guard"},
            counters=[{"stat": {"name": "requests", "tags": tags}, "value_fixed": 1}],
        ),
    }


def _routes() -> list[Config]:
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
                    "typed_config": _typed(
                        "extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                    ),
                }
            ],
            "host_selection_retry_max_attempts": 3,
        },
    }
    if cluster == "grpc":
        route["max_stream_duration"] = {"grpc_timeout_header_max": "0s"}
    else:
        route["retry_policy"]["retriable_status_codes"] = [503]
    return route


def _cluster(name: str, front: Front) -> Config:
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
                        "typed_config": _typed(
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
        # Ready is a server whose model answers; the check goes to its HTTP socket (in the endpoints).
        "health_checks": [
            {
                "http_health_check": {"path": READY},
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_interval": "0.25s",
                "timeout": "5s",
                "unhealthy_threshold": 2,
                "healthy_threshold": 1,
            }
        ],
        # Out is a server to which connections break. Refusals don't count: they are UNAVAILABLE or
        # 503, as good answers as any other.
        "outlier_detection": {
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
        },
        # As many requests as the servers work on and let wait. Retries may be a fifth of what is in
        # flight, or 32: what a server that died was working on, without making an overload much worse.
        "circuit_breakers": {
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
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": _typed(
                "extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config=own
            )
        },
    }


def _control_cluster(front: Front) -> Config:
    endpoint = {"endpoint": {"address": _pipe(front.folder / CONTROL)}}
    return {
        "name": "control",
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": "control",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }


def endpoints(cluster: str, sockets: Sequence[Mapping[str, Path]]) -> Config:
    """Return the resource that names the servers of a cluster by their sockets."""
    listed = [
        {
            "endpoint": {
                "address": _pipe(each[cluster]),
                # gRPC's clients can't see whether a model is ready; HTTP's can.
                "health_check_config": {"address": _pipe(each["http"])},
            }
        }
        for each in sockets
    ]
    return {
        "resources": [
            {
                "@type": f"{_API}.config.endpoint.v3.ClusterLoadAssignment",
                "cluster_name": cluster,
                "endpoints": [{"lb_endpoints": listed}],
            }
        ]
    }


def _pipe(path: Path) -> Config:
    return {"pipe": {"path": str(path)}}


def _typed(kind: str, **values: object) -> Config:
    return {"@type": f"{_API}.{kind}", **values}
