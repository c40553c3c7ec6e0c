"""Certificates and tokens as the guard's Envoy reads them, renewed while it runs.

Envoy watches ``server.json`` and ``clients.json``, the Lua files look at ``tokens.json`` once a second. Both are written here
from what the operator named, mode 600, whenever that changes: however a certificate is renewed, in place
or by a link, the next connection has it.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from trackserve.errors import InputError
from trackserve.files import write_text
from trackserve.serving.guard.tokens import read_clients

if TYPE_CHECKING:
    from pathlib import Path

    from trackserve.serving.guard.remote import Remote
    from trackserve.serving.guard.settings import GuardSettings

LOOK_SECONDS = 1.0
_API = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


class Credentials:
    """The files in ``folder`` that are made of the certificates and tokens of the settings."""

    def __init__(self, folder: Path, settings: GuardSettings, remote: Remote | None = None) -> None:
        self.folder, self.settings, self.remote = folder, settings, remote
        self.problem = ""
        """Why the last change couldn't be taken; what was there before holds then."""
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: dict[Path, tuple[int, int, int]] = {}

    @property
    def tokens_file(self) -> Path | None:
        """Where the Lua files read the tokens, None if requests need none."""
        return self.folder / "tokens.json" if self.settings.tokens else None

    def write(self) -> None:
        """Write the files; raises :class:`InputError` for what can't be used."""
        self._seen = self._look()
        if self.settings.certificate and self.settings.key:
            self._write_secrets(self.settings.certificate, self.settings.key)
        if self.settings.tokens:
            self._write_tokens(self.settings.tokens)
        if self.remote and self.remote.ca:
            self._write_tls("servers", validation_context=self.remote.trust(_pem(self.remote.ca)))
        if self.remote and self.remote.token:
            value = {"inline_string": f"Bearer {self.remote.read_token()}"}
            self._write_tls("token", generic_secret={"secret": value})

    def watch(self) -> None:
        """Write again whenever a file changes, until :meth:`stop`."""
        if self._files():
            self._thread = threading.Thread(target=self._watch, name="credentials", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Stop watching."""
        self._stopping.set()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopping.wait(LOOK_SECONDS):
            if self._look() == self._seen:
                continue
            try:
                self.write()
                self.problem = ""
            except (InputError, OSError) as error:  # half written, or wrong: the old one holds
                self.problem = str(error)

    def _files(self) -> list[Path]:
        chosen = self.settings
        named = (chosen.certificate, chosen.key, chosen.client_ca, chosen.tokens)
        others = (self.remote.ca, self.remote.token) if self.remote else ()
        return [path for path in (*named, *others) if path]

    def _look(self) -> dict[Path, tuple[int, int, int]]:
        found = {}
        for path in self._files():
            with suppress(OSError):
                state = path.stat()
                found[path] = (state.st_ino, state.st_mtime_ns, state.st_size)
        return found

    def _write_secrets(self, certificate: Path, key: Path) -> None:
        pair = {"certificate_chain": _pem(certificate), "private_key": _pem(key)}
        _check_pair(certificate, key)
        self._write_tls("server", tls_certificate=pair)
        if self.settings.client_ca:
            # Every certificate is let through here, and refused by the Lua files: with a sentence.
            context = {
                "trusted_ca": _pem(self.settings.client_ca),
                "trust_chain_verification": "ACCEPT_UNTRUSTED",
            }
            self._write_tls("clients", validation_context=context)

    def _write_tls(self, name: str, **secret: object) -> None:
        resource = {"@type": _API, "name": name, **secret}
        _write_secret(self.folder / f"{name}.json", {"resources": [resource]})

    def _write_tokens(self, path: Path) -> None:
        clients = {
            client.sha256: {
                name: value
                for name, value in vars(client).items()
                if name != "sha256" and value is not None
            }
            for client in read_clients(path)
        }
        _write_secret(self.folder / "tokens.json", clients)


def _pem(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        message = f"{path} can't be read as PEM: {error}"
        raise InputError(message) from None
    if "-----BEGIN " not in text:
        message = f"{path} is not a PEM file; expected a certificate or key in text form"
        raise InputError(message)
    return {"inline_string": text}


def _check_pair(certificate: Path, key: Path) -> None:
    """Raise :class:`InputError` unless the key is the certificate's."""
    import ssl  # noqa: PLC0415 - only where TLS is used

    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        message = f"the certificate {certificate} and the key {key} can't be used together: {error}"
        raise InputError(message) from None


def _write_secret(path: Path, content: object) -> None:
    """Write JSON that nobody else may read, whole or not at all."""
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    path.chmod(0o600)
    write_text(path, json.dumps(content, indent=1))
