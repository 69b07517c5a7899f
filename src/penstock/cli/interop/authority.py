"""The private certificate authority of PENSTOCK_HOME/interop, and certificates for the names that the proxy plays."""

import fcntl
import ipaddress
import os
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from penstock.settings.private import private_folder

_VALID = timedelta(days=365)
_RENEW_BEFORE = timedelta(days=30)
_LEAF_VALID = timedelta(days=7)
_CLOCK_SKEW = timedelta(hours=1)


class Authority:
    """One authority: key and certificate in ``FOLDER/ca.key`` (0600), the certificate alone in ``FOLDER/ca.pem``."""

    def __init__(self, folder: Path) -> None:
        """Opens the folder's authority; makes a new one where it is missing, readable by others or near its end.

        Raises OSError.
        """
        self.certificate_path = private_folder(folder) / "ca.pem"
        (folder / ".lock").touch(mode=0o600)
        with (folder / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            found = _read(folder / "ca.key")
            self._key, self._certificate = found or _create()
            pem = self._certificate.public_bytes(Encoding.PEM)
            if found is None:
                _write(folder / "ca.key", _pem(self._key) + pem, mode=0o600)
            if not self.certificate_path.exists() or self.certificate_path.read_bytes() != pem:
                _write(self.certificate_path, pem, mode=0o644)

    def context(self, name: str) -> ssl.SSLContext:
        """A server's TLS context whose fresh certificate carries ``name``, however odd, as its one subject."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(key.public_key(), "Penstock interop", _LEAF_VALID).issuer_name(self._certificate.subject)
        signed = (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_general_name(name)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The ssl module takes a key from a file only; this one is private to us and gone in a moment.
        with tempfile.NamedTemporaryFile() as file:
            file.write(_pem(key) + signed.public_bytes(Encoding.PEM))
            file.flush()
            context.load_cert_chain(file.name)
        return context


def _create() -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(key.public_key(), "Penstock interop authority", _VALID)
    certificate = (
        builder.issuer_name(_name("Penstock interop authority"))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate


def _builder(key: ec.EllipticCurvePublicKey, subject: str, valid: timedelta) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + valid)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _read(path: Path) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate] | None:
    try:
        pem = path.read_bytes()
        key, certificate = load_pem_private_key(pem, None), x509.load_pem_x509_certificate(pem)
    except (FileNotFoundError, ValueError):
        return None
    exposed = path.stat().st_mode & 0o077
    fresh = certificate.not_valid_after_utc - datetime.now(UTC) > _RENEW_BEFORE
    return (key, certificate) if isinstance(key, ec.EllipticCurvePrivateKey) and fresh and not exposed else None


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _write(path: Path, content: bytes, *, mode: int) -> None:
    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    draft.replace(path)
