"""A router in front of the server, and of the echo: half of each model's requests to each variant.

Both variants are the same server, so callers must see no difference; only of `both`, one variant is
version 1 of the digits, the other version 2.
"""

from pathlib import Path
from typing import Any

import yaml

MODELS = (
    *("digits", "identity", "typed", "words", "shifted", "sequences"),
    *("slow", "raises", "counted"),
)


def configuration(folder: Path, server: str, echo: str) -> Path:
    """Write a router.yaml with ports of the system's choice."""
    text = {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {"server": {"targets": [server]}, "echo": {"targets": [echo]}},
        "routes": [
            *(route(model, "server", canary=50) for model in MODELS),
            route("both", "server", canary=50, variants=two_versions()),
            route("echo", "echo", canary=0, timeout="10s"),
        ],
    }
    file = folder / "router.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def route(model: str, backend: str, *, canary: int, **more: Any) -> dict[str, Any]:
    return {
        "name": model,
        "match": {"model": model},
        "variants": {"stable": {"backend": backend}, "canary": {"backend": backend}},
        "weights": {"stable": 100 - canary, "canary": canary},
        **more,
    }


def two_versions() -> dict[str, dict[str, str]]:
    digits = {"backend": "server", "model": "digits"}
    return {"stable": {**digits, "version": "1"}, "canary": {**digits, "version": "2"}}
