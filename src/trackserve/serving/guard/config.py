"""Envoy's configuration: the one front before a server, several servers, or those of a cluster.

Its limits are in the filter's own files: the Lua files beside this one look at each request before a
server parses it. What is said here holds for every request, whatever is in it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from trackserve.serving.guard.clusters import CLUSTERS, cluster, control_cluster
from trackserve.serving.guard.pieces import CONNECTIONS, WINDOW, pipe, typed, watched_secret
from trackserve.serving.guard.routes import routes
from trackserve.serving.guard.tracing import PACE

if TYPE_CHECKING:
    from trackserve.serving.guard.pieces import Config, Front

LUA = Path(__file__).with_name("lua")
LARGEST_WINDOW = 2**31 - 1
STREAMS = 256
HEAP = 2 * 2**30
"""Bytes of memory at which Envoy takes no more requests: more than enough for events that wait."""


def envoy_config(front: Front) -> Config:
    """Return the configuration; the servers come by the watched files ``grpc.json`` and ``http.json``."""
    return {
        "node": {"id": "guard", "cluster": "trackserve"},
        "admin": {"address": pipe(front.folder / "admin.sock")},
        # What the administration changes while Envoy runs: the room, where servers come and go.
        "layered_runtime": {
            "layers": [
                *([{"name": "tracing", "static_layer": PACE}] if front.tracing else ()),
                {"name": "changed", "admin_layer": {}},
            ]
        },
        "overload_manager": _overload(),
        "static_resources": {
            "listeners": [_listener(front)],
            "clusters": [
                *(cluster(name, front) for name in CLUSTERS),
                control_cluster(front),
                *([front.tracing.cluster()] if front.tracing else ()),
            ],
        },
    }


def _overload() -> Config:
    """Refuse before memory or connections run out."""
    return {
        "refresh_interval": "0.25s",
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.fixed_heap",
                "typed_config": typed(
                    "extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                    max_heap_size_bytes=HEAP,
                ),
            },
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": typed(
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
    common: Config = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [watched_secret(front.folder, "server")],
    }
    if front.client_certificates:
        common["validation_context_sds_secret_config"] = watched_secret(front.folder, "clients")
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(
            "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            common_tls_context=common,
            # A resumed session would not say whether its certificate was validated.
            disable_stateless_session_resumption=True,
            disable_stateful_session_resumption=True,
        ),
    }


def _connection_manager(front: Front) -> Config:
    return typed(
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
        local_reply_config=_own_answers(),
        access_log=[*_access_log(front.access_log), _counters()],
        http_filters=[
            {
                "name": "guard",
                "typed_config": typed(
                    "extensions.filters.http.lua.v3.Lua",
                    default_source_code={"inline_string": _script(front.folder)},
                ),
            },
            *(front.remote.filters(front.folder) if front.remote else ()),
            {
                "name": "envoy.filters.http.router",
                "typed_config": typed("extensions.filters.http.router.v3.Router"),
            },
        ],
        **(front.tracing.of_requests() if front.tracing else {}),
        route_config={"virtual_hosts": [{"name": "servers", "domains": ["*"], "routes": routes()}]},
    )


BAD_PATH = "the request's path is not one that HTTP allows"


def _own_answers() -> Config:
    """Mark Envoy's own answers with a header, by which the Lua files make a sentence of them.

    They don't see a request whose path is refused while it is read. Envoy calls that internal over gRPC.
    """
    details = _header("x-guard-details", "%RESPONSE_CODE_DETAILS%")
    of_grpc = {"name": "content-type", "string_match": {"prefix": "application/grpc"}}
    bad_of_grpc = {"filters": [_status("EQ", 400), {"header_filter": {"header": of_grpc}}]}
    answer = [_header("grpc-status", "3"), _header("grpc-message", BAD_PATH)]
    return {
        "mappers": [
            {"filter": {"and_filter": bad_of_grpc}, "headers_to_add": [details, *answer]},
            {"filter": _status("GE", 400), "headers_to_add": [details]},
        ]
    }


def _status(comparison: str, value: int) -> Config:
    compared = {"op": comparison, "value": {"default_value": value, "runtime_key": "none"}}
    return {"status_code_filter": {"comparison": compared}}


def _header(name: str, value: str) -> Config:
    return {"header": {"key": name, "value": value}}


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
        "typed_config": typed(
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
        "typed_config": typed(
            "extensions.access_loggers.stats.v3.Config",
            stats_scope={"prefix": "guard"},
            counters=[{"stat": {"name": "requests", "tags": tags}, "value_fixed": 1}],
        ),
    }
