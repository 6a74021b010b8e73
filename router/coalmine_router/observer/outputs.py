"""Whether the rules name outputs that there are: asked once, when rules are new.

A router that is only restarted asks nobody: a model that changed meanwhile must not keep it down.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import grpc
import structlog
from google.protobuf.message import DecodeError

from coalmine.errors import StartError
from coalmine.inference import SERVICE
from coalmine.inference import inference_pb2 as oip
from coalmine_router.backends.registry import Backends
from coalmine_router.config.compare_section import unknown_outputs
from coalmine_router.observer.route_settings import RouteSettings
from coalmine_router.table import STABLE, Route, RouteTable

_log = structlog.get_logger(__name__)

_DEADLINE_S: Final = 1.0
_MODEL_METADATA: Final = f"/{SERVICE}/ModelMetadata"


class OutputsCheck:
    """Asks stable for its outputs, for routes whose rules name some.

    `noted` is a file of its own, of what was found to be right before.
    """

    def __init__(self, backends: Backends, noted: Path) -> None:
        self._backends = backends
        self._noted = noted

    async def run(self, table: RouteTable, routes: Mapping[str, RouteSettings]) -> None:
        """Return once all that could be asked is right. Raises StartError for what isn't.

        A backend that can't say, or can't be reached, is asked again at the next start.
        """
        known = self._read()
        new = {
            route: settings
            for route, settings in _routes_with_named_outputs(table, routes)
            if known.get(route.name) != _basis_of(route, settings)
        }
        async with asyncio.TaskGroup() as tasks:
            asked = [tasks.create_task(self._outputs(route)) for route in new]
        for (route, settings), told in zip(new.items(), asked, strict=True):
            names = told.result()
            if names is not None:
                _check(route, settings, names)
                known[route.name] = _basis_of(route, settings)
        self._write(known)

    async def _outputs(self, route: Route) -> list[str] | None:
        wanted = oip.ModelMetadataRequest(
            name=route.stable.model or route.match.model, version=route.stable.version
        )
        answer = await self._ask(route, wanted.SerializeToString())
        if answer is None:
            _log.info("outputs_not_checked", route=route.name, model=wanted.name)
            return None
        return [each.name for each in answer.outputs] or None

    async def _ask(self, route: Route, request: bytes) -> oip.ModelMetadataResponse | None:
        """Return what an address of stable says; None: it can't be had."""
        endpoints = self._backends.find_endpoints(route.name, STABLE)
        if endpoints is None:
            return None
        await self._backends.wait_until(
            lambda: endpoints.is_ready or endpoints.is_settled, _DEADLINE_S
        )
        address = endpoints.pick()
        if address is None:
            return None
        try:
            answer = await address.call(
                _MODEL_METADATA, request, metadata=endpoints.token_metadata, timeout_s=_DEADLINE_S
            )
            return oip.ModelMetadataResponse.FromString(answer or b"")
        except (grpc.aio.AioRpcError, DecodeError):
            return None

    def _read(self) -> dict[str, str]:
        try:
            found = json.loads(self._noted.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, known: Mapping[str, str]) -> None:
        try:
            self._noted.write_text(json.dumps(known), encoding="utf-8")
        except OSError as error:
            _log.warning("outputs_not_noted", file=str(self._noted), error=str(error))


def _routes_with_named_outputs(
    table: RouteTable, routes: Mapping[str, RouteSettings]
) -> Iterator[tuple[Route, RouteSettings]]:
    """Return the routes of one model whose rules name outputs."""
    for route in table.routes:
        settings = routes.get(route.name)
        if settings is not None and settings.compare.outputs and route.match.model:
            yield route, settings


def _basis_of(route: Route, settings: RouteSettings) -> str:
    """Return what the answer depends on: not on weights, which others change."""
    stable = route.stable
    return f"{settings.goes_by} {stable.backend} {stable.model} {stable.version}"


def _check(route: Route, settings: RouteSettings, names: list[str]) -> None:
    unknown = unknown_outputs(settings.compare, names)
    if unknown:
        raise StartError(
            f"route '{route.name}': compare.outputs names '{unknown[0]}', but the model of "
            f"'stable' has {', '.join(sorted(names)[:16])}"
        )
