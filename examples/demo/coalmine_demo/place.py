"""Where the demo's files are, and its router.yaml."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import yaml

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Place:
    """The demo's folder; what is in it stays when the demo ends. Its processes listen at `host`."""

    folder: Path
    host: str = LOOPBACK

    def address_at(self, port: int = 0) -> str:
        """Return an address of the host; the system picks a port that is 0."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"

    @property
    def training(self) -> Path:
        """TorchScript files, held-out images and the answers to them."""
        return self.folder / "training"

    @property
    def repository(self) -> Path:
        """The server's model repository."""
        return self.folder / "models"

    @property
    def logs(self) -> Path:
        """What the processes wrote to standard error."""
        return self.folder / "logs"

    @property
    def router_config(self) -> Path:
        """The router.yaml that is used."""
        return self.folder / "router.yaml"

    @property
    def state(self) -> Path:
        """The router's state folder."""
        return self.folder / "state"

    @property
    def router_traces(self) -> Path:
        """The router's trace files, where it puts them by itself."""
        return self.state / "traces"

    @property
    def server_traces(self) -> Path:
        """The server's trace files."""
        return self.folder / "server-traces"

    @property
    def picked_traces(self) -> Path:
        """Some whole traces in one file, small enough for a browser."""
        return self.folder / "traces.jsonl"

    def trace_files(self) -> list[Path]:
        """Return the trace files that router and server left."""
        return [
            file
            for folder in (self.router_traces, self.server_traces)
            for file in sorted(folder.glob("traces-*.jsonl"))
        ]


def router_config(server: str, state: Path, listen: str) -> str:
    """Return the packaged router.yaml for a server, listening at `listen` alone."""
    config: dict[str, Any] = yaml.safe_load(router_template())
    config["listen"] = config["http"] = listen
    config["control"] = {"listen": listen, "state": str(state)}
    for backend in config["backends"].values():
        backend["targets"] = [server]
    return yaml.safe_dump(config, sort_keys=False)


def router_template() -> str:
    """Return the packaged router.yaml, as examples/digits has it."""
    return files("coalmine_demo").joinpath("router.yaml").read_text(encoding="utf-8")
