"""The proxy and its certificates, from the client's side of real sockets."""

import contextlib
import http.client
import os
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from penstock.cli.interop.authority import Authority
from penstock.cli.interop.proxy import Proxy, running
from tests.cli.double import Double, send, serving

NAME = "us.inference.heroku.com"


@pytest.fixture
def gateway() -> Iterator[Double]:
    """A gateway that says its name, and streams when asked to."""
    with serving(lambda handler, asked: send(handler, 200, {"asked": asked.path, "got": asked.body})) as double:
        yield double


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A new authority."""
    return Authority(tmp_path / "interop")


def tunnel(proxy: str, destination: str) -> tuple[bytes, socket.socket]:
    """The status line that a CONNECT gets, and the connection."""
    connection = socket.create_connection(("127.0.0.1", int(proxy.rpartition(":")[2])), timeout=30)
    connection.sendall(f"CONNECT {destination} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        block = connection.recv(1)
        if not block:
            break
        head += block
    return head.partition(b"\r\n")[0], connection


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.certificate_path))


def test_an_inference_host_is_played_with_a_certificate_that_verifies(gateway: Double, authority: Authority) -> None:
    with running(Proxy(gateway.url, frozenset({NAME}), authority)) as url:
        port = int(url.rpartition(":")[2])
        client = http.client.HTTPSConnection("127.0.0.1", port, context=trusting(authority), timeout=30)
        client.set_tunnel(NAME, 443)
        for number in range(2):
            body = f'"{"x" * 300_000}{number}"'
            client.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            assert body.encode() in client.getresponse().read()
        client.close()
    assert [asked.path for asked in gateway.asked] == ["/v1/chat/completions"] * 2


@pytest.mark.parametrize(
    "destination", ["example.com:443", f"{NAME}:80", "127.0.0.1:443", f"{NAME}.evil.example:443", ""]
)
def test_any_other_destination_is_refused(destination: str, gateway: Double, authority: Authority) -> None:
    proxy = Proxy(gateway.url, frozenset({NAME}), authority)
    with running(proxy) as url:
        status, connection = tunnel(url, destination)
        connection.close()
    assert status == b"HTTP/1.1 403 Forbidden"
    assert proxy.refused == {destination}


def test_a_plain_request_is_refused(gateway: Double, authority: Authority) -> None:
    with running(Proxy(gateway.url, frozenset({NAME}), authority)) as url:
        client = http.client.HTTPConnection("127.0.0.1", int(url.rpartition(":")[2]), timeout=30)
        client.request("GET", f"http://{NAME}:443/available-models")
        assert client.getresponse().status == 403
        client.close()
    assert gateway.asked == []


def test_a_gateway_that_is_down_is_a_502(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        target = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with running(Proxy(target, frozenset({NAME}), authority)) as url:
        status, connection = tunnel(url, f"{NAME}:443")
        connection.close()
    assert status == b"HTTP/1.1 502 Bad Gateway"


def test_a_client_that_hangs_up_hangs_up_on_the_gateway_too(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with running(Proxy(target, frozenset({NAME}), authority)) as url:
            _, connection = tunnel(url, f"{NAME}:443")
            accepted, _ = listener.accept()
            accepted.settimeout(30)
            with accepted, trusting(authority).wrap_socket(connection, server_hostname=NAME) as secure:
                secure.sendall(b"half a request")
                assert accepted.recv(100) == b"half a request"
                secure.close()
                assert accepted.recv(100) == b""


def test_a_client_without_tls_harms_nobody(gateway: Double, authority: Authority) -> None:
    with running(Proxy(gateway.url, frozenset({NAME}), authority)) as url:
        _, connection = tunnel(url, f"{NAME}:443")
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while connection.recv(1000):
                pass
        connection.close()
        assert tunnel(url, f"{NAME}:443")[0].startswith(b"HTTP/1.1 200")


def test_a_gateway_with_tls_is_reached_over_tls(authority: Authority) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with running(Proxy(target, frozenset({NAME}), authority)) as url:
            client = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)
            client.sendall(f"CONNECT {NAME}:443 HTTP/1.1\r\n\r\n".encode())
            accepted, _ = listener.accept()
            with accepted, client:
                assert accepted.recv(3)[:1] == b"\x16"  # the first byte of a TLS handshake


def test_the_authority_is_made_once(tmp_path: Path) -> None:
    first, again = Authority(tmp_path), Authority(tmp_path)
    assert first.certificate_path.read_bytes() == again.certificate_path.read_bytes()


def test_an_authority_that_others_could_read_is_replaced(tmp_path: Path) -> None:
    before = Authority(tmp_path).certificate_path.read_bytes()
    (tmp_path / "ca.key").chmod(0o644)
    assert Authority(tmp_path).certificate_path.read_bytes() != before
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("days", "kept"), [(31, True), (29, False), (-1, False)])
def test_an_authority_near_its_end_is_replaced(days: int, kept: bool, tmp_path: Path) -> None:
    pem = bundle(timedelta(days=days))
    with os.fdopen(os.open(tmp_path / "ca.key", os.O_WRONLY | os.O_CREAT, 0o600), "wb") as file:
        file.write(pem)
    Authority(tmp_path)
    assert ((tmp_path / "ca.key").read_bytes() == pem) is kept


def test_a_damaged_authority_is_replaced(tmp_path: Path) -> None:
    Authority(tmp_path)
    (tmp_path / "ca.key").write_text("-----BEGIN NONSENSE-----\n")
    assert trusting(Authority(tmp_path)).get_ca_certs()


def bundle(left: timedelta) -> bytes:
    """A key and a certificate that is valid for so much longer."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "old")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=300))
        .not_valid_after(now + left)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) + certificate.public_bytes(Encoding.PEM)


def test_each_refused_destination_is_told_once(gateway: Double, authority: Authority) -> None:
    proxy, told = Proxy(gateway.url, frozenset({NAME}), authority), list[str]()
    proxy.on_refusal = told.append
    with running(proxy) as url:
        for destination in ("a.example:443", "b.example:443", "a.example:443", f"{NAME}:443"):
            tunnel(url, destination)[1].close()
    assert told == ["a.example:443", "b.example:443"]
