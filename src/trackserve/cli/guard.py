"""The options of the guard: who may send requests, and how large."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

    from trackserve.serving.guard.settings import GuardSettings


def add_guard(parser: argparse.ArgumentParser) -> None:
    """Add the options to a parser."""
    group = parser.add_argument_group("who may send requests")
    group.add_argument(
        "--certificate", type=Path, metavar="PEM", help="the server's certificate, for TLS"
    )
    group.add_argument("--key", type=Path, metavar="PEM", help="private key of the certificate")
    group.add_argument(
        "--client-ca",
        type=Path,
        metavar="PEM",
        help="take only clients with a certificate of this authority",
    )
    group.add_argument(
        "--tokens", type=Path, metavar="TOML", help="take only clients with one of these tokens"
    )
    group.add_argument(
        "--max-request-bytes",
        type=int,
        metavar="N",
        help="maximum bytes of one request (default: enough for --max-hits)",
    )


def chosen_guard(options: argparse.Namespace) -> GuardSettings:
    """Return the settings that the options give."""
    from trackserve.serving.guard.settings import GuardSettings

    return GuardSettings(
        max_request_bytes=options.max_request_bytes,
        certificate=options.certificate,
        key=options.key,
        client_ca=options.client_ca,
        tokens=options.tokens,
    )
