"""Held-out digits in miniature, and exchanges made of them."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from coalmine_demo.account import OK, TrafficExchange
from coalmine_demo.heldout import HeldOut, LocalAnswers

TRUE_LABELS = (0, 1, 2, 3)


def heldout(**answers: tuple[int, ...]) -> HeldOut:
    """Return four images; each variant answers the labels given, with logits that say so."""
    pixels = np.arange(4 * 64, dtype=np.float32).reshape(4, 64)
    models = {variant: _answers(labels) for variant, labels in answers.items()}
    return HeldOut(pixels, np.array(TRUE_LABELS), models)


def logits_of(label: int) -> NDArray[Any]:
    """Return logits whose largest is that of `label`."""
    logits: NDArray[Any] = np.eye(10, dtype=np.float32)[label]
    return logits


def _answers(labels: tuple[int, ...]) -> LocalAnswers:
    return LocalAnswers(np.stack([logits_of(label) for label in labels]), np.array(labels))


def exchange(
    variant: str, image: int = 0, *, label: int | None = None, revision: int = 1, **changed: object
) -> TrafficExchange:
    """Return an answered request; the label is the true one unless told."""
    said = TRUE_LABELS[image] if label is None else label
    fields: dict[str, object] = {
        "image": image,
        "status": OK,
        "variant": variant,
        "revision": revision,
        "latency_ms": 1.0,
        "logits": logits_of(said),
        "label": said,
        **changed,
    }
    return TrafficExchange(**fields)  # type: ignore[arg-type]


def failed(status: str, *, revision: int = 0) -> TrafficExchange:
    """Return a request that got no answer."""
    empty = np.empty(0, dtype=np.float32)
    return exchange("", status=status, label=-1, revision=revision, logits=empty)
