"""The server and the router that the list of calls is made to, each of two processes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.conformance.listed import LIST
from tests.doubles.processes import Started
from tests.doubles.router_setup import router
from tests.doubles.server_process import server_of, written

LANGUAGES = ("python", "node", "go", "java")
_PLAIN = ("sequences", "slow", "raises", "counted")
_OPTIONS = ("--workers", "2", "--intra-op", "1", "--max-message-mib", "1")


@contextmanager
def scene(folder: Path) -> Iterator[dict[str, Started]]:
    """Yield the server and the router, by name."""
    models = written("tests.conformance.listed_models", folder / "models")
    with (
        server_of(models, folder, *_OPTIONS) as server,
        router(_configuration(folder, server.address("grpc")), workers=2) as before_it,
    ):
        yield {"server": server, "router": before_it}


def address_of(running: Started) -> str:
    return str(running.said.get("data") or running.said["grpc"])


def _configuration(folder: Path, server: str) -> Path:
    same = (f"same_{each.lower()}" for each in LIST["datatypes"])
    shares = {name: LIST["split"][name] for name in ("stable", "canary")}
    text = {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {"server": {"targets": [server]}},
        "routes": [
            *(_route(model, {"stable": {"backend": "server"}}) for model in (*_PLAIN, *same)),
            _route("digits", _versions(), weights={"stable": 50, "canary": 50}),
            _route("narrow", _versions(), limits={"in_flight": 10, "bytes": "1KiB"}),
            _route(
                "sticky",
                _versions(),
                weights={"stable": 50, "canary": 50},
                sticky={"metadata": "x-user-id"},
            ),
            *(_route(f"split_{each}", _versions(), weights=shares) for each in LANGUAGES),
        ],
    }
    file = folder / "router.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def _route(model: str, variants: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": model, "match": {"model": model}, "variants": variants, **more}


def _versions() -> dict[str, dict[str, str]]:
    digits = {"backend": "server", "model": "digits"}
    return {"stable": {**digits, "version": "1"}, "canary": {**digits, "version": "2"}}
