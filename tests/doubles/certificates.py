"""A certificate authority for tests: it signs certificates for loopback, and for callers."""

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_LIVES = timedelta(days=2)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    cert: Path
    key: Path


class Authority:
    """Signs certificates; `ca` is the file that makes others trust them."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        self._certificate = _signed(self._name, self._name, self._key, self._key, is_authority=True)

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

    def pair(self, name: str, subject: str) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _signed(_name(subject), self._name, key, self._key, is_authority=False)
        made = Pair(self._folder / f"{name}.pem", self._folder / f"{name}-key.pem")
        _replace(made.key, _key_pem(key))
        _replace(made.cert, _pem(certificate))
        return made


def serial_of(pem: bytes) -> int:
    """Return the number that tells a certificate from every other."""
    return x509.load_pem_x509_certificate(pem).serial_number


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _signed(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    by: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    loopback = [ipaddress.ip_address(each) for each in ("127.0.0.1", "::1")]
    names = [x509.DNSName("localhost"), *map(x509.IPAddress, loopback)]
    length = 0 if is_authority else None
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIVES)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=length), critical=True)
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
