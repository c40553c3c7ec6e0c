"""Envoy's own spans: one for each request, between the client's and the server's.

It sends them to the same collector as the models do, and hands its span on as the header ``traceparent``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from trackserve.contract.trace import TRACES_PATH
from trackserve.serving.guard.pieces import typed

if TYPE_CHECKING:
    from trackserve.serving.guard.pieces import Config
    from trackserve.serving.settings import Settings

SERVICE = "trackserve-guard"
COLLECTOR = "collector"
PACE: Config = {
    "tracing.opentelemetry.flush_interval_ms": 500,
    "tracing.opentelemetry.min_flush_spans": 256,
}
"""Spans are sent together: Envoy's own default is a message for each five."""
MILLION = 1_000_000


@dataclass(frozen=True)
class Tracing:
    """Where spans go, ``http://host:port``, and the ``share`` of the requests in no trace that begin one."""

    collector: str
    share: float

    @classmethod
    def of(cls, settings: Settings) -> Self | None:
        """Return what the settings ask for, None if nothing is traced."""
        return cls(settings.trace, settings.trace_share) if settings.trace else None

    def of_requests(self) -> Config:
        """Return the part of the connection manager."""
        uri = {"uri": f"{self.collector}{TRACES_PATH}", "cluster": COLLECTOR, "timeout": "5s"}
        return {
            "tracing": {
                "provider": {
                    "name": "envoy.tracers.opentelemetry",
                    "typed_config": typed(
                        "config.trace.v3.OpenTelemetryConfig",
                        http_service={"http_uri": uri},
                        service_name=SERVICE,
                        sampler=self._sampler(),
                    ),
                },
            },
            # By default Envoy draws from a request's id, leaves out those whose id is no number, and writes its
            # choice into the id, which is the client's.
            "request_id_extension": {
                "typed_config": typed(
                    "extensions.request_id.uuid.v3.UuidRequestIdConfig",
                    pack_trace_reason=False,
                    use_request_id_for_trace_sampling=False,
                )
            },
        }

    def _sampler(self) -> Config:
        """Follow the client's choice; draw for requests that are in no trace."""
        name, kind = (
            "envoy.tracers.opentelemetry.samplers",
            "extensions.tracers.opentelemetry.samplers.v3",
        )
        share = {"numerator": round(MILLION * self.share), "denominator": "MILLION"}
        drawn = {
            "name": f"{name}.trace_id_ratio_based",
            "typed_config": typed(
                f"{kind}.TraceIdRatioBasedSamplerConfig", sampling_percentage=share
            ),
        }
        return {
            "name": f"{name}.parent_based",
            "typed_config": typed(f"{kind}.ParentBasedSamplerConfig", wrapped_sampler=drawn),
        }

    def cluster(self) -> Config:
        """Return where Envoy sends its spans."""
        place = urlsplit(self.collector)
        address = {"socket_address": {"address": place.hostname, "port_value": place.port}}
        return {
            "name": COLLECTOR,
            "type": "STRICT_DNS",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": COLLECTOR,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }
