"""A certificate authority for tests: it signs certificates for loopback, and for callers."""

import asyncio
import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_STARTED = datetime.now(UTC)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


@dataclass(frozen=True)
class Times:
    """From when until when a certificate is good, from the start of the tests."""

    begins_h: float = -1.0
    ends_h: float = 48.0

    @property
    def begins(self) -> datetime:
        return _STARTED + timedelta(hours=self.begins_h)

    @property
    def ends(self) -> datetime:
        return _STARTED + timedelta(hours=self.ends_h)


_NOW = Times()
EXPIRED = Times(-48.0, -24.0)
EARLY = Times(24.0, 48.0)


class Authority:
    """Signs certificates; `ca` is the file that makes others trust them."""

    def __init__(
        self, folder: Path, name: str = "test authority", *, above: "Authority | None" = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        issuer, by = (self._name, self._key) if above is None else (above._name, above._key)
        self._certificate = _signed(self._name, issuer, self._key, by, is_authority=True)

    @cached_property
    def ca(self) -> Path:
        path = self._folder / "ca.pem"
        path.write_bytes(_pem(self._certificate))
        return path

    def server(self, name: str = "server") -> Pair:
        """Write NAME.pem and NAME-key.pem for a server at localhost, 127.0.0.1 and ::1.

        Written again under the same name, they are new ones: what a rotation leaves.
        """
        return self.pair(name, "localhost")

    def client(self, name: str = "client") -> Pair:
        """Write NAME.pem and NAME-key.pem for a caller whose common name is NAME."""
        return self.pair(name, name)

    def pair(
        self,
        name: str,
        subject: str,
        *,
        times: Times | None = None,
        host: str = "localhost",
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(
            _name(subject),
            self._name,
            key,
            self._key,
            is_authority=False,
            times=times or _NOW,
            host=host,
        )
        made = Pair(self._folder / f"{name}.pem", self._folder / f"{name}-key.pem")
        _replace(made.key, _key_pem(key))
        _replace(made.cert, _pem(certificate))
        return made


def serial_of(pem: bytes) -> int:
    """Return the number that tells a certificate from every other."""
    return x509.load_pem_x509_certificate(pem).serial_number


async def shown_serial(address: str) -> int:
    """Return the serial of the certificate that a new connection is shown."""
    host, _, port = address.rpartition(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return serial_of(pem.encode())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
    times: Times = _NOW,
    host: str = "localhost",
) -> x509.Certificate:
    loopback = ("127.0.0.1", "::1") if host == "localhost" else ()
    names = [x509.DNSName(host), *(x509.IPAddress(ipaddress.ip_address(each)) for each in loopback)]
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(times.begins)
        .not_valid_after(times.ends)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(by, hashes.SHA256())
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _replace(path: Path, content: bytes) -> None:
    """Write as whoever rotates certificates should: a reader finds the old file, or the new."""
    whole = path.with_name(f"{path.name}.new")
    whole.write_bytes(content)
    whole.replace(path)
