"""How a guard reaches servers on other machines: their certificates, and its token for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from trackserve.errors import InputError
from trackserve.serving.guard.pieces import typed, watched_secret

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.serving.guard.pieces import Config


@dataclass(frozen=True)
class Remote:
    """What the servers ask for, checked when made.

    With ``ca`` (a PEM file) they speak TLS with certificates of that authority, for the host ``name`` if
    that is given; the guard shows its own certificate to those that ask for one. ``token`` is a file with
    the guard's token for the servers: a client's own stays at the guard.
    """

    ca: Path | None = None
    name: str = ""
    token: Path | None = None

    def __post_init__(self) -> None:
        if self.name and self.ca is None:
            message = "a name of the servers needs the authority of their certificates"
            raise InputError(message)

    def read_token(self) -> str:
        """Return the token; raises :class:`InputError` if the file has none."""
        assert self.token is not None
        try:
            token = self.token.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            message = f"the token in {self.token} can't be read: {error}"
            raise InputError(message) from None
        if not token or len(token.split()) > 1:
            message = f"{self.token} holds no token; expected one word"
            raise InputError(message)
        return token

    def trust(self, ca: Config) -> Config:
        """Return which certificates of servers are taken, ``ca`` being the authority's."""
        context: Config = {"trusted_ca": ca}
        if self.name:
            exact = {"san_type": "DNS", "matcher": {"exact": self.name}}
            context["match_typed_subject_alt_names"] = [exact]
        return context

    def of_cluster(self, folder: Path, *, tls: bool) -> Config:
        """Return what a cluster of such servers has beside the rest."""
        more: Config = {
            # What was sent to a host that is cut off would wait for as long as its client does.
            "close_connections_on_host_health_failure": True,
            "upstream_connection_options": {
                "tcp_keepalive": {
                    "keepalive_probes": 3,
                    "keepalive_time": 10,
                    "keepalive_interval": 5,
                }
            },
        }
        if self.ca is not None:
            common: Config = {
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "validation_context_sds_secret_config": watched_secret(folder, "servers"),
            }
            if tls:
                common["tls_certificate_sds_secret_configs"] = [watched_secret(folder, "server")]
            own = {"sni": self.name} if self.name else {}
            more["transport_socket"] = {
                "name": "envoy.transport_sockets.tls",
                "typed_config": typed(
                    "extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                    common_tls_context=common,
                    **own,
                ),
            }
        return more

    def filters(self, folder: Path) -> list[Config]:
        """Return the filters that a request passes on its way to such servers, after the guard's own."""
        if self.token is None:
            return []
        generic = typed(
            "extensions.http.injected_credentials.generic.v3.Generic",
            credential=watched_secret(folder, "token"),
        )
        injector = typed(
            "extensions.filters.http.credential_injector.v3.CredentialInjector",
            overwrite=True,
            credential={
                "name": "envoy.http.injected_credentials.generic",
                "typed_config": generic,
            },
        )
        return [{"name": "token", "typed_config": injector}]
