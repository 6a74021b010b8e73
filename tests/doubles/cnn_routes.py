"""A router's routes for the models of cnn.py: by which rules each is compared, and with whom."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

# Of all candidates by all rules, with noise, on all images; else of those that tests look at.
ALL_PAIRS = os.environ.get("COALMINE_ALL_PAIRS") == "1"
IMAGES = 600
# Enough where a twentieth may mismatch.
FEW = IMAGES if ALL_PAIRS else 300

# Of models that answer one request at a time: the version beside which others stand is cnn 1.
CANDIDATES = {
    "itself": ("cnn", "1"),
    "int8": ("cnn-int8", "1"),
    "retrained": ("cnn", "4"),
    "unscaled": ("cnn", "3"),
    "scaled_twice": ("cnn", "2"),
}
# A step of the int8 model's logits is 0.24.
TOLERANT = {
    "outputs": {
        "logits": {"rule": "close", "rtol": 0.05, "atol": 0.25},
        "scores": {"rule": "close", "rtol": 0, "atol": 0.1},
    }
}
DISTRIBUTION = {
    "outputs": {
        "logits": {"rule": "distribution", "from": "logits"},
        "scores": {"rule": "distribution", "from": "probabilities"},
    }
}
TOP_3 = {"default": {"rule": "top_k", "k": 3, "min_overlap": 0.6}}


@dataclass(frozen=True)
class Route:
    """One route: the rules, what they allow, and who is compared by them, on how many images."""

    compare: Mapping[str, Any]
    candidates: Sequence[str] = ()
    allowed: float = 0.01
    noise: bool = False
    images: int = IMAGES
    # A model with batches stands beside itself alone.
    model: str = "cnn"

    @property
    def models(self) -> Mapping[str, tuple[str, str]]:
        if self.model != "cnn":
            return {"stable": (self.model, "1"), "itself": (self.model, "1")}
        names = CANDIDATES if ALL_PAIRS else self.candidates
        return {"stable": ("cnn", "1"), **{each: CANDIDATES[each] for each in names}}


ROUTES = {
    "close": Route({}, tuple(CANDIDATES)),
    "noise": Route({}, ["itself", "unscaled"], noise=True, images=FEW),
    "close_int8": Route(TOLERANT, ["int8"]),
    "distribution": Route(DISTRIBUTION, ["int8", "retrained"]),
    "cosine": Route({"default": {"rule": "cosine"}}, ["int8"], images=FEW),
    "argmax": Route(
        {"default": {"rule": "argmax"}}, ["int8", "unscaled", "retrained"], 0.05, images=FEW
    ),
    "top_k": Route(TOP_3, ["int8"], 0.05, images=FEW),
    "batched": Route({}, noise=True, model="cnn-batched"),
    "mixing": Route({}, noise=True, images=FEW, model="cnn-mixing"),
    "mixing_tolerant": Route(TOLERANT, (), 0.05, noise=True, images=FEW, model="cnn-mixing"),
}


def configuration(folder: Path, backend: str) -> Path:
    """Write a router.yaml with all routes, and with ports of the system's choice."""
    text = {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {"blue": {"targets": [backend]}},
        "routes": [entry(name, route) for name, route in ROUTES.items()],
    }
    file = folder / "router.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def entry(name: str, route: Route) -> dict[str, Any]:
    everything = {"share": 100, "timeout": "30s"}
    return {
        "name": name,
        "match": {"model": f"digits-{name}"},
        "variants": {
            variant: {"backend": "blue", "model": model, "version": version}
            for variant, (model, version) in route.models.items()
        },
        "shadows": {each: dict(everything) for each in route.models if each != "stable"},
        "noise": dict(everything) if route.noise else 0,
        "compare": dict(route.compare),
        "gates": {
            "max_mismatch_rate": route.allowed,
            "per": "request",
            "min_duration": "0s",
        },
        "kept": {"newest": 5, "worst": 5},
    }
