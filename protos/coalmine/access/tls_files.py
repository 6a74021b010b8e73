"""The names of TLS files, on both sides of a connection. `credentials.py` reads the files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coalmine.errors import StartError

# The metadata that shows a token.
AUTHORIZATION: Final = "authorization"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A server's PEM files; with `client_ca`, callers must show a certificate of that authority."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    @classmethod
    def from_options(
        cls, cert: Path | None, key: Path | None, client_ca: Path | None
    ) -> "TlsFiles | None":
        """Return what these options ask for; None: plaintext. Raises StartError."""
        if cert is not None and key is not None:
            return cls(cert, key, client_ca)
        if cert or key or client_ca:
            raise StartError("--tls-cert and --tls-key go together, and --tls-client-ca needs both")
        return None


@dataclass(frozen=True, slots=True)
class Tls:
    """A caller's PEM files: the authority that it trusts, and the certificate that it shows.

    Without `ca` it trusts gRPC's own authorities. `server_name` is the name in the server's
    certificate if that isn't the address, as behind a forwarded port.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None

    @classmethod
    def from_options(
        cls, ca: Path | None, cert: Path | None, key: Path | None, server_name: str | None
    ) -> "Tls | None":
        """Return what these options ask for; None: a connection in plaintext."""
        if (ca, cert, key, server_name) == (None, None, None, None):
            return None
        return cls(ca, cert, key, server_name)
