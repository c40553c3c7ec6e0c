"""What a client shows a server, and whom it trusts: certificates (PEM files) and a token.

Each is an argument or a variable of the environment: TRACKSERVE_CA, TRACKSERVE_CERTIFICATE,
TRACKSERVE_KEY, TRACKSERVE_TOKEN_FILE or TRACKSERVE_TOKEN.
"""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from trackserve.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

SECURE = {"grpcs": "grpc", "https": "http"}
"""The schemes with TLS, and the protocols that they carry."""


@dataclass(frozen=True)
class Credentials:
    """Certificates and token of a client.

    ``ca`` is the authority that the server's certificate must be of (default: those of the system),
    ``certificate`` and ``key`` are the client's own. Without TLS a ``token`` can be read on its way.
    """

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    token: str = ""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            message = "a client's certificate and its key go together; one of them is missing"
            raise InputError(message)
        if not self.token.isascii() or not self.token.isprintable() or " " in self.token:
            message = "the token has other than printable ASCII characters without blanks"
            raise InputError(message)

    def __repr__(self) -> str:
        token = "'...'" if self.token else "''"
        return f"Credentials(ca={self.ca}, certificate={self.certificate}, token={token})"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Return what the environment gives; raises :class:`InputError` for a token file not to be read."""

        def path(name: str) -> Path | None:
            return Path(found) if (found := environment.get(f"TRACKSERVE_{name}")) else None

        token = environment.get("TRACKSERVE_TOKEN", "")
        if file := path("TOKEN_FILE"):
            token = read_token(file)
        return cls(path("CA"), path("CERTIFICATE"), path("KEY"), token)

    def headers(self) -> dict[str, str]:
        """Return the headers of every request."""
        return {"authorization": f"Bearer {self.token}"} if self.token else {}

    def grpc_options(self, scheme: str) -> dict[str, Any]:
        """Return tritonclient's options for a gRPC connection."""
        if scheme not in SECURE:
            return {}
        self._check_files()
        names = ("root_certificates", "certificate_chain", "private_key")
        files = (self.ca, self.certificate, self.key)
        given = {name: str(file) for name, file in zip(names, files, strict=True) if file}
        return {"ssl": True, **given}

    def context(self) -> ssl.SSLContext:
        """Return the TLS context of an HTTP connection; raises :class:`InputError` for unusable files."""
        self._check_files()
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.certificate:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:  # an SSLError is one
            message = f"the certificates can't be used: {error}"
            raise InputError(message) from None
        return context

    def _check_files(self) -> None:
        for file in (self.ca, self.certificate, self.key):
            if file is not None and not Path(file).is_file():
                message = f"{file} is not a file; expected a certificate or key in PEM"
                raise InputError(message)


def read_token(path: Path) -> str:
    """Read a token from a file; raises :class:`InputError` if it can't be."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        message = f"the token in {path} can't be read: {error}"
        raise InputError(message) from None
