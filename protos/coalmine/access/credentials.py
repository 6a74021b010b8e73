"""TLS credentials from PEM files. The files are checked before anything uses them."""

import ssl
from pathlib import Path
from typing import Final

import grpc

from coalmine.access.tls_files import Tls, TlsFiles
from coalmine.errors import StartError, reason_of
from coalmine.process.watched_files import Watched

_MISMATCH: Final = "KEY_VALUES_MISMATCH"

# ---------------------------------------------------------------- servers


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return credentials for one listener, which reads the files again when they change.

    A new connection gets the files' newest content; open ones go on. Raises StartError.
    """
    paths = [each for each in (files.cert, files.key, files.client_ca) if each is not None]
    watched = Watched(paths, lambda: _server_configuration(files))

    def fetch_configuration() -> grpc.ServerCertificateConfiguration | None:
        # gRPC asks at each new connection, on threads of its own.
        return watched.value if watched.refresh() else None

    return grpc.dynamic_ssl_server_credentials(
        watched.value,
        fetch_configuration,  # type: ignore[arg-type]  # may be None, by grpc's own words
        require_client_authentication=files.client_ca is not None,
    )


def _server_configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    key, cert = _read_key_pair(files.cert, files.key)
    authority = None if files.client_ca is None else _read_certificates(files.client_ca)
    return grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=authority)


# ---------------------------------------------------------------- callers


def channel_credentials(tls: Tls) -> grpc.ChannelCredentials:
    """Return credentials for a channel. Raises StartError for files that are wrong."""
    authority = None if tls.ca is None else _read_certificates(tls.ca)
    if tls.cert is None and tls.key is None:
        return grpc.ssl_channel_credentials(authority)
    if tls.cert is None or tls.key is None:
        raise StartError("a caller's certificate and its key go together")
    key, cert = _read_key_pair(tls.cert, tls.key)
    return grpc.ssl_channel_credentials(authority, key, cert)


# ---------------------------------------------------------------- PEM files


def _read_key_pair(cert: Path, key: Path) -> tuple[bytes, bytes]:
    """Return the content of `key` and of `cert`, which fit each other. Raises StartError."""
    found = _read_bytes(key), _read_certificates(cert)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # The empty password is for none: OpenSSL would ask for one at the terminal.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        if error.reason == _MISMATCH:
            if place := _place_of_certificate(found[0], found[1]):
                raise StartError(
                    f"{cert}: certificate {place} in it is that of {key}: it has to be the first, "
                    "before those that signed it"
                ) from None
            raise StartError(f"{key}: not the key of {cert}") from None
        raise StartError(f"{key}: not a private key, PEM and not encrypted") from None
    except (OSError, ValueError) as error:
        raise StartError(f"{key}: not a private key: {error}") from None
    if found != (_read_bytes(key), _read_bytes(cert)):  # OpenSSL has read them for itself
        raise StartError(f"{cert}: changed while it was read")
    return found


def _place_of_certificate(key: bytes, certificates: bytes) -> int:
    """Return the place, from 1, of the certificate that belongs to a key; 0 if none does."""
    try:
        from cryptography import x509  # noqa: PLC0415 - a caller alone does without it
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415
    except ImportError:
        return 0
    public = serialization.load_pem_private_key(key, None).public_key()
    found = x509.load_pem_x509_certificates(certificates)
    return next((at for at, each in enumerate(found, 1) if each.public_key() == public), 0)


def _read_certificates(path: Path) -> bytes:
    """Return the content of a file with certificates. Raises StartError."""
    content = _read_bytes(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content.decode())
    except (ssl.SSLError, ValueError):
        raise StartError(f"{path}: not a certificate, PEM") from None
    return content


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(f"{path}: {reason_of(error)}") from None
