"""What can happen to requests, provoked with a real router and a real server, trace by trace.

Backends answer by the metadata `x-scene`, in which each request says what is to happen to it.
"""

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
import yaml

from coalmine.spans.span_resource import resource
from tests.doubles.oip_backend import INFER, Answer, Seen, echo, request_body, response_body

Array = np.ndarray[Any, np.dtype[np.float32]]

PIXELS: Final = np.zeros((1, 64), np.float32)
SCORES: Final = np.array([[0.1, 0.7, 0.2]], np.float32)
LOGITS: Final = np.array([[1.0, 2.0, 3.0]], np.float32)
SCENE: Final = "x-scene"
_SLOW_S: Final = 0.3
_MISMATCHES: Final = 40
_WHOLE: Final = 100
_CALLER: Final = "ab" * 8

_NAN: Final = np.array([[np.nan, 2.0, 3.0]], np.float32)
# What canary answers otherwise than stable, by scene.
_CANARYS: Final[Mapping[str, tuple[Array, Array]]] = {
    "scores by 0.2": (SCORES + np.float32(0.2), LOGITS),
    "logits by 5e-3": (SCORES, LOGITS + np.float32(5e-3)),
    "logits by 2e-4": (SCORES, LOGITS + np.float32(2e-4)),
    "nan": (SCORES, _NAN),
    "slow mismatch": (SCORES, LOGITS + np.float32(0.2)),
    "acme's mismatch": (SCORES, LOGITS + np.float32(0.2)),
    "audit": (SCORES, LOGITS + np.float32(0.2)),
    "beyond noise": (SCORES, LOGITS + np.float32(0.2)),
    "noise too": (SCORES, LOGITS + np.float32(0.2)),
    "judged": (SCORES, LOGITS + np.float32(0.2)),
}
_TENANTS: Final[Mapping[str, str]] = {"of acme": "acme", "acme's mismatch": "acme"}
_GONE: Final = Answer(code=grpc.StatusCode.UNAVAILABLE, message="gone fishing")


def answer(scores: Array = SCORES, logits: Array = LOGITS, version: str = "1") -> Answer:
    return Answer(response_body(version=version, scores=scores, logits=logits))


def scene_of(seen: Seen) -> str:
    return next((str(value) for key, value in seen.metadata if key == SCENE), "")


@dataclass
class Stable:
    """Answers as it should; late, not, or the second time otherwise, where the scene says so."""

    asked: Counter[str] = field(default_factory=Counter)

    def __call__(self, seen: Seen) -> Answer:
        if seen.method != INFER:
            return echo(seen)
        scene = scene_of(seen)
        self.asked[scene] += 1
        if scene == "failed":
            return Answer(code=grpc.StatusCode.INTERNAL, message="no digit")
        if scene == "tried twice" and self.asked[scene] == 1:
            return _GONE
        if scene == "noise too" and self.asked[scene] == 2:
            return answer(SCORES, LOGITS + np.float32(0.1))
        slow = {"slow", "slow mismatch", "full"}
        made = answer()
        return Answer(made.body, delay_s=_SLOW_S) if scene in slow else made


def canary(seen: Seen) -> Answer:
    scene = scene_of(seen)
    if seen.method != INFER:
        return echo(seen)
    if scene in {"shadow failed", "fell back"}:
        return _GONE
    scores, logits = _CANARYS.get(scene, (SCORES, LOGITS))
    return answer(scores, logits, version="3" if scene == "version 3" else "2")


def int8(seen: Seen) -> Answer:
    if seen.method != INFER:
        return echo(seen)
    return answer(SCORES + np.float32(0.2)) if scene_of(seen) == "of int8" else answer()


def configuration(folder: Path, **targets: list[str]) -> Path:
    """Write a router.yaml with a route for each kind of thing."""
    quiet = {"max_mismatch_rate": None}
    exact = {"default": {"rule": "exact"}}
    both = {"stable": {"backend": "stable"}, "canary": {"backend": "canary"}}
    wobbly = {"weights": {"stable": 0, "canary": 100}, "fallback": True, "gates": quiet}
    routes = [
        {
            "name": "digits",
            "match": {"model": "digits"},
            "variants": {
                **both,
                "int8": {"backend": "int8"},
                "absent": {"backend": "absent"},
            },
            "shadows": {"canary": 100, "int8": 100},
            "segment": {"metadata": "x-tenant"},
            "gates": quiet,
            "compare": exact,
            "timeout": "5s",
        },
        _route("real", {"stable": {"backend": "served", "model": "digits"}}),
        _route("audited", both, weights={"stable": 0, "canary": 100}, audit=100, gates=quiet),
        _route("noisy", both, shadows={"canary": 100}, noise=100, gates=quiet),
        _route("wobbly", both, **wobbly),
        _route("twice", {"stable": {"backend": "two"}}, fallback=True),
        _route("narrow", {"stable": {"backend": "stable"}}, limits={"in_flight": 1}),
        _route("judged", both, shadows={"canary": 100}, gates={"per": "request"}),
    ]
    text = {
        "listen": "127.0.0.1:0",
        "control": {"listen": "127.0.0.1:0", "state": str(folder / "state")},
        "http": "127.0.0.1:0",
        "backends": {name: {"targets": where} for name, where in targets.items()},
        "routes": routes,
    }
    file = folder / "router.yaml"
    file.write_text(yaml.safe_dump(text))
    return file


def _route(name: str, variants: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "match": {"model": name}, "variants": dict(variants), **more}


class Provoked:
    """Asks the router, each request in a trace of its own; `names` are the scenes by trace id."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        self._call = channel.unary_unary(f"/{INFER}")
        self._numbers = itertools.count(1)
        self.names: dict[str, str] = {}
        self._spans: list[dict[str, Any]] = []

    async def everything(self) -> None:
        """Let everything that a search asks for happen to a request."""
        plain = [*(_CANARYS.keys() - {"audit", "beyond noise", "noise too", "judged"})]
        plain += ["match", "slow", "of int8", "shadow failed", "failed", "of acme", "version 3"]
        for name in sorted(plain):
            await self.ask(name)
        await self.ask("order", request_id="order-4711")
        await self.ask("served", model="real", version="3", request_id="order-4711")
        for _ in range(_WHOLE):
            await self.ask("other version", model="real", version="2")
        await self.ask("absent", pin="absent")
        await self.ask("no route", model="nope")
        await self.ask("audit", model="audited")
        for name in ("beyond noise", "noise too"):
            await self.ask(name, model="noisy")
        await self.ask("fell back", model="wobbly")
        await self.ask("tried twice", model="twice")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.ask("full", model="narrow"))
            await asyncio.sleep(_SLOW_S / 3)
            await self.ask("in flight", model="narrow")
        for _ in range(_MISMATCHES):
            await self.ask("judged", model="judged")

    async def ask(
        self,
        name: str,
        *,
        model: str = "digits",
        pin: str = "",
        version: str = "",
        request_id: str = "",
    ) -> None:
        """Ask once."""
        trace_id = f"c0a1{next(self._numbers):028x}"
        self.names[trace_id] = name
        metadata = [("traceparent", f"00-{trace_id}-{_CALLER}-01"), (SCENE, name)]
        began_ns = time.time_ns()
        metadata += [("x-coalmine-variant", pin)] if pin else []
        metadata += [("x-tenant", _TENANTS[name])] if name in _TENANTS else []
        body = request_body(model, version=version, request_id=request_id, pixels=PIXELS)
        call = self._call(body, metadata=metadata, timeout=20)
        fails = await call.code() is not grpc.StatusCode.OK
        assert fails is (name in _FAIL), f"{name}: {await call.details()}"
        self._note(trace_id, began_ns)

    def _note(self, trace_id: str, began_ns: int) -> None:
        times = {"startTimeUnixNano": str(began_ns), "endTimeUnixNano": str(time.time_ns())}
        span = {"traceId": trace_id, "spanId": _CALLER, "name": "ask", "kind": 3, **times}
        self._spans.append(span)

    def callers(self) -> str:
        """Return the spans of who asked, as OTLP JSON."""
        said = {"service.name": "caller", **resource("caller", {}).attributes}
        texts = {key: str(value) for key, value in said.items()}
        attributes = [{"key": key, "value": {"stringValue": text}} for key, text in texts.items()]
        scope = {"scope": {"name": "here"}, "spans": self._spans}
        group = {"resource": {"attributes": attributes}, "scopeSpans": [scope]}
        return json.dumps({"resourceSpans": [group]})


_FAIL: Final = frozenset({"failed", "absent", "no route", "in flight"})
