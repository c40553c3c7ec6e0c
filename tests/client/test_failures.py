"""What gRPC and Python say of a connection, as a sentence that says what to do."""

from __future__ import annotations

import pytest

from trackserve.client.failures import unreachable
from trackserve.errors import NotTrustedError

GRPC = (
    "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:8001: Tls handshake failed "
    "(TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
    "CERTIFICATE_VERIFY_FAILED: unable to get local issuer certificate: OK"
)
PYTHON = (
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
    "unable to get local issuer certificate (_ssl.c:1006)"
)


@pytest.mark.parametrize("reason", [GRPC, PYTHON])
def test_a_certificate_that_is_not_trusted(reason):
    error = unreachable("grpcs://a:1", reason)
    assert isinstance(error, NotTrustedError)
    said = "grpcs://a:1 is not trusted: unable to get local issuer certificate"
    assert said in str(error)
    assert "TRACKSERVE_CA" in str(error)


@pytest.mark.parametrize(
    ("url", "reason", "hint"),
    [
        ("a:1", "last error: UNAVAILABLE: ipv4:127.0.0.1:1: Socket closed", "grpcs://"),
        ("http://a:1", "Remote end closed connection without response", "https://"),
    ],
)
def test_plain_text_to_a_server_with_tls(url, reason, hint):
    assert str(unreachable(url, reason)).endswith(f"does it speak {hint} alone?")
    assert "does it speak" not in str(unreachable(hint + "a:1", reason))
