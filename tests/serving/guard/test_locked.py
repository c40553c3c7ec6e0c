"""TLS, clients' certificates and tokens: with real certificates, and each kind of wrong one."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from served import FREE_PORTS
from trackserve.client import Client, Credentials
from trackserve.client.statistics import read_page
from trackserve.errors import InputError, ServerError, UnreachableError
from trackserve.serving.fleet.remote import RemoteFleet
from trackserve.serving.guard.remote import Remote
from trackserve.serving.guard.settings import GuardSettings
from trackserve.serving.guard.tokens import new_token, read_clients
from trackserve.serving.service import serve, warn_if_open
from trackserve.serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trackserve.serving.service import Service

pytestmark = pytest.mark.service
HITS = np.ones((2, 3))


def openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder."""

    folder: Path

    @classmethod
    def new(cls, folder: Path) -> Authority:
        folder.mkdir()
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", 30, "-subj", "/CN=test CA",
                "-keyout", folder / "ca.key", "-out", folder / "ca.pem")  # fmt: skip
        return cls(folder)

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    def issue(
        self, name: str, host: str = "localhost", *, expired: bool = False
    ) -> tuple[Path, Path]:
        """Return a certificate and its key."""
        key, asked, given = (self.folder / f"{name}.{end}" for end in ("key", "csr", "pem"))
        extra = self.folder / f"{name}.txt"
        address = ",IP:127.0.0.1" if host == "localhost" else ""
        extra.write_text(f"subjectAltName=DNS:{host}{address}\n")
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
                "-keyout", key, "-out", asked)  # fmt: skip
        days = ("-days", -1) if expired else ("-days", 30)
        openssl("x509", "-req", "-in", asked, "-CA", self.ca, "-CAkey", self.folder / "ca.key",
                "-CAcreateserial", *days, "-extfile", extra, "-out", given)  # fmt: skip
        return given, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority.new(tmp_path_factory.mktemp("pki") / "ours")


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Authority:
    return Authority.new(tmp_path_factory.mktemp("pki") / "theirs")


ERIN = new_token()
"""A client of a front, whom the servers don't know."""
TOKENS = {name: new_token() for name in ("alice", "bob", "carol", "dave")}


@pytest.fixture(scope="module")
def service(authority, tiny_bundle, tmp_path_factory) -> Iterator[Service]:
    """Everything at once: TLS, clients' certificates, tokens."""
    folder = tmp_path_factory.mktemp("locked")
    certificate, key = authority.issue("server")
    tokens = folder / "tokens.toml"
    tokens.write_text(
        f'[alice]\nsha256 = "{TOKENS["alice"][1]}"\n'
        f'[bob]\nsha256 = "{TOKENS["bob"][1]}"\nexpires = 2020-01-01\n'
        f'[carol]\nsha256 = "{TOKENS["carol"][1]}"\nrequests_per_second = 2\n'
        f'[dave]\nsha256 = "{TOKENS["dave"][1]}"\nmax_request_bytes = 1000\n'
    )
    guard = GuardSettings(certificate=certificate, key=key, client_ca=authority.ca, tokens=tokens)
    with serve(tiny_bundle, Settings(), guard=guard, **FREE_PORTS) as running:
        yield running


@pytest.fixture(params=["grpc", "http"])
def url(request, service) -> str:
    url: str = service.grpc_url if request.param == "grpc" else service.http_url
    return url.replace("127.0.0.1", "localhost")


def shown(authority: Authority, own: tuple[Path, Path] | None, name: str = "alice") -> Credentials:
    certificate, key = own or (None, None)
    return Credentials(authority.ca, certificate, key, TOKENS[name][0] if name else "")


def find(url: str, credentials: Credentials, hits: object = HITS) -> list[int]:
    with Client(url, tries=1, timeout=10, credentials=credentials) as client:
        return client.find_tracks(hits).labels.tolist()


def test_who_shows_all_is_answered(authority, url, service):
    assert url.split(":")[0] in {"grpcs", "https"}
    assert find(url, shown(authority, authority.issue("someone"))) == [-1, -1]


def test_without_a_certificate(authority, url):
    with pytest.raises(ServerError, match="asks for a client's certificate, and none came"):
        find(url, shown(authority, None))


def test_with_an_expired_certificate(authority, url):
    with pytest.raises(ServerError, match="client's certificate has expired"):
        find(url, shown(authority, authority.issue("old", expired=True)))


def test_with_a_certificate_of_another_authority(authority, other, url):
    with pytest.raises(ServerError, match="not one of the authority that this server trusts"):
        find(url, shown(authority, other.issue("stranger")))


def test_a_server_of_another_authority_is_not_trusted(authority, other, url):
    with pytest.raises(UnreachableError):
        find(url, shown(other, authority.issue("someone")))


def test_a_server_of_another_name_is_not_trusted(authority, tiny_bundle):
    certificate, key = authority.issue("elsewhere", "elsewhere.example")
    guard = GuardSettings(certificate=certificate, key=key)
    with serve(tiny_bundle, Settings(), guard=guard, **FREE_PORTS) as running:
        for url in (running.grpc_url, running.http_url):
            with pytest.raises(UnreachableError):
                find(url.replace("127.0.0.1", "localhost"), shown(authority, None, ""))


def test_a_front_on_another_machine_shows_its_own_credentials(
    authority, service, tiny_bundle, tmp_path
):
    """The servers know the front, the front its clients."""
    own, key = authority.issue("front")
    listed, token, tokens = (tmp_path / name for name in ("servers", "token", "tokens.toml"))
    listed.write_text(f"127.0.0.1:{service.ports['grpc']}\n")
    token.write_text(TOKENS["alice"][0] + "\n")
    tokens.write_text(f'[erin]\nsha256 = "{ERIN[1]}"\n')
    guard = GuardSettings(certificate=own, key=key, tokens=tokens)
    clients = Credentials(authority.ca, token=ERIN[0])

    def answers(remote: Remote, patience: float = 4.0) -> list[list[int]]:
        with RemoteFleet(
            str(listed), tiny_bundle, guard=guard, remote=remote, folder=tmp_path / "f", port=0
        ) as front:
            until = time.monotonic() + patience
            while not front.room and time.monotonic() < until:
                time.sleep(0.05)
            urls = [url.replace("127.0.0.1", "localhost") for url in front.urls.values()]
            return [find(url, clients) for url in urls]

    assert answers(Remote(authority.ca, "localhost", token), patience=60.0) == [[-1, -1]] * 2
    assert (tmp_path / "f/token.json").stat().st_mode & 0o077 == 0
    with pytest.raises(ServerError, match="asks for a token"):
        answers(Remote(authority.ca))
    with pytest.raises(ServerError, match=r"no server answers|queue is full"):
        answers(Remote(authority.ca, "elsewhere.example", token))


def test_plain_text_is_not_answered(service):
    for url in (service.grpc_url, service.http_url):
        with pytest.raises(UnreachableError):
            find(url.replace("grpcs:", "grpc:").replace("https:", "http:"), Credentials())


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "asks for a token, and none came"), ("bob", "the token of bob has expired")],
)
def test_tokens_that_are_missing_or_expired(authority, url, name, reason):
    with pytest.raises(ServerError, match=reason):
        find(url, shown(authority, authority.issue("someone"), name))


def test_a_token_that_nobody_knows(authority, url):
    certificate, key = authority.issue("someone")
    with pytest.raises(ServerError, match="not one that this server knows"):
        find(url, Credentials(authority.ca, certificate, key, "guess"))


def test_limits_of_a_client(authority, url):
    own = authority.issue("someone")
    credentials = shown(authority, own, "carol")
    with pytest.raises(ServerError, match=r"carol may send 2 requests a second; retry after"):
        for _ in range(10):
            find(url, credentials)
    with pytest.raises(InputError, match="this client may send at most 1000"):
        find(url, shown(authority, own, "dave"), np.ones((500, 3)))


def test_refusals_are_counted(authority, service, monkeypatch):
    certificate, key = authority.issue("someone")
    for name, value in (("CA", authority.ca), ("CERTIFICATE", certificate), ("KEY", key),
                        ("TOKEN", TOKENS["alice"][0])):  # fmt: skip
        monkeypatch.setenv(f"TRACKSERVE_{name}", str(value))
    page = read_page(service.metrics_url.replace("127.0.0.1", "localhost"))
    for outcome in ("missing", "wrong", "expired", "limited"):
        assert f'outcome="{outcome}"' in page
    assert 'client="alice",outcome="passed"' in page


def served_certificate(service: Service) -> bytes:
    context = ssl._create_unverified_context()
    with (
        socket.create_connection(("127.0.0.1", service.ports["http"])) as plain,
        context.wrap_socket(plain) as secure,
    ):
        found = secure.getpeercert(binary_form=True)
    assert found
    return found


def test_a_certificate_is_renewed_without_a_restart(authority, service):
    before, pid = served_certificate(service), service.guard.pid
    authority.issue("server")  # in place
    until = time.monotonic() + 15
    while served_certificate(service) == before:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert service.guard.pid == pid
    assert find(service.http_url.replace("127.0.0.1", "localhost"),
                shown(authority, authority.issue("someone"))) == [-1, -1]  # fmt: skip


def test_secrets_are_for_their_owner_alone(service):
    for name in ("server.json", "clients.json", "tokens.json"):
        assert (service.guard.folder / name).stat().st_mode & 0o077 == 0
    tokens = json.loads((service.guard.folder / "tokens.json").read_text())
    assert TOKENS["alice"][0] not in json.dumps(tokens)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x", "can't be read"),
        ("[a]\nsha256 = 'x'", "64 hexadecimal digits"),
        ("a = 1", "is not a client"),
        (f"[a]\nsha256 = '{'0' * 64}'\nrate = 1", "has 'rate'; expected"),
        (f"[a]\nsha256 = '{'0' * 64}'\n[b]\nsha256 = '{'0' * 64}'", "the same token"),
    ],
)
def test_files_of_tokens_that_are_none(tmp_path, text, reason):
    (tmp_path / "tokens").write_text(text)
    with pytest.raises(InputError, match=reason):
        read_clients(tmp_path / "tokens")


def test_an_open_address_warns(tmp_path):
    with pytest.warns(UserWarning, match=r"open beyond this machine .* can be read .* everybody"):
        warn_if_open("0.0.0.0", GuardSettings())
    warn_if_open("127.0.0.1", GuardSettings())
    locked = GuardSettings(certificate=tmp_path, key=tmp_path, tokens=tmp_path)
    warn_if_open("0.0.0.0", locked)


def test_settings_that_do_not_go_together(tmp_path):
    with pytest.raises(InputError, match="go together"):
        GuardSettings(certificate=tmp_path)
    with pytest.raises(InputError, match="need TLS"):
        GuardSettings(client_ca=tmp_path)
