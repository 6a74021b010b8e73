"""The whole of router.yaml."""

from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from coalmine.access.tls_files import TlsFiles
from coalmine.errors import CoalmineError, StartError
from coalmine.process import config_file
from coalmine.process.addresses import split_address
from coalmine.process.config_file import Strict
from coalmine.process.text_file import content_of
from coalmine_router.config.names import Name, Target, path_text
from coalmine_router.config.route import LimitsConfig, RouteConfig
from coalmine_router.table import Backend, BackendTls, RouteTable

_LIMITS: Final = LimitsConfig.model_validate({"in_flight": 4_096, "bytes": "1GiB"})


class TlsConfig(Strict):
    """A listener's PEM files; with `client_ca`, callers must show a certificate of it."""

    cert: Path
    key: Path
    client_ca: Path | None = None

    def files(self) -> TlsFiles:
        """Return the files."""
        return TlsFiles(self.cert, self.key, self.client_ca)


class ControlConfig(Strict):
    """The control process."""

    listen: str = "127.0.0.1:9002"
    state: Path = Path("./state")
    tls: TlsConfig | None = None
    tokens: Path | None = None


class BackendTlsConfig(Strict):
    """PEM files for the connections to a backend; `{}` trusts gRPC's own root certificates."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: Annotated[str, Field(min_length=1, max_length=253)] | None = None

    @model_validator(mode="after")
    def _check_pair(self) -> Self:
        if (self.cert is None) != (self.key is None):
            raise ValueError("a certificate and its key go together")
        return self

    def tls(self) -> BackendTls:
        """Return the settings as the table holds them."""
        return BackendTls(
            path_text(self.ca), path_text(self.cert), path_text(self.key), self.server_name or ""
        )


class BackendConfig(Strict):
    """A backend's addresses, as gRPC targets, and how it is reached."""

    targets: Annotated[tuple[Target, ...], Field(min_length=1, max_length=64)]
    tls: BackendTlsConfig | None = None
    token_file: Path | None = None

    def backend(self, name: str) -> Backend:
        """Return the backend of that name."""
        tls = self.tls.tls() if self.tls is not None else None
        return Backend(name, self.targets, tls, path_text(self.token_file))


class RouterConfig(Strict):
    """The whole file. `limits` hold for each proxy, over all its routes."""

    listen: str = "127.0.0.1:9001"
    tls: TlsConfig | None = None
    tokens: Path | None = None
    control: ControlConfig = ControlConfig()
    http: str = "127.0.0.1:9003"
    limits: LimitsConfig = _LIMITS
    backends: Annotated[dict[Name, BackendConfig], Field(min_length=1, max_length=256)]
    routes: Annotated[list[RouteConfig], Field(min_length=1)]

    def reached_backends(self) -> tuple[Backend, ...]:
        """Return the backends and how each is reached, without the routes to them."""
        return tuple(each.backend(name) for name, each in self.backends.items())

    def table(self) -> RouteTable:
        """Return the table of revision 0 that the file describes. Raises CoalmineError."""
        return RouteTable(
            revision=0,
            backends=self.reached_backends(),
            routes=tuple(route.route() for route in self.routes),
            limits=self.limits.limits(),
        )


def read_config(path: Path) -> RouterConfig:
    """Return the file's content, checked as a whole. Raises StartError, in one line."""
    return parse_config(content_of(path), path=path)


def parse_config(text: str, *, path: Path) -> RouterConfig:
    """Return `text`, which `path` holds, checked as a whole. Raises StartError, in one line."""
    config = config_file.parse(text, RouterConfig, path=path)
    places = {"listen": config.listen, "control.listen": config.control.listen, "http": config.http}
    try:
        for key, address in places.items():
            _check_address(key, address)
        config.table()
    except (CoalmineError, StartError) as error:
        raise StartError(f"{path}: {error}") from None
    return config


def _check_address(key: str, address: str) -> None:
    try:
        split_address(address)
    except StartError as error:
        raise StartError(f"{key}: {error}") from None
