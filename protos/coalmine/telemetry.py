"""Logging, and the names that spans, metrics and metadata go by."""

import logging
import os
import sys
from typing import Any, Final

import structlog

from coalmine.errors import StartError

ROUTER_SERVICE: Final = "coalmine-router"
SERVER_SERVICE: Final = "coalmine-server"

# ---------------------------------------------------------------- metadata keys (contract)

VARIANT_KEY: Final = "x-coalmine-variant"
REVISION_KEY: Final = "x-coalmine-revision"
ORIGIN_KEY: Final = "x-coalmine-origin"
ORIGIN_ROUTER: Final = "router"

# ---------------------------------------------------------------- span attributes (contract)

ROUTE: Final = "coalmine.route"
VARIANT: Final = "coalmine.variant"
ASSIGNMENT: Final = "coalmine.assignment"
# The variant that was assigned, where another answered instead.
CHOSEN: Final = "coalmine.chosen"
# Why the router itself refused the request.
TURNED_AWAY: Final = "coalmine.turned_away"
REVISION: Final = "coalmine.revision"
ROLE: Final = "coalmine.role"
BACKEND: Final = "coalmine.backend"
MODEL: Final = "coalmine.model"
MODEL_VERSION: Final = "coalmine.model.version"
REQUEST_ID: Final = "coalmine.request.id"
BATCH_SIZE: Final = "coalmine.batch.size"
BATCH_LINKS_LEFT_OUT: Final = "coalmine.batch.links_left_out"

COMPARE_SPAN: Final = "coalmine.compare"
COMPARE_OUTCOME: Final = "coalmine.compare.outcome"
COMPARE_REFERENCE: Final = "coalmine.compare.reference"
COMPARE_CANDIDATE: Final = "coalmine.compare.candidate"
COMPARE_KIND: Final = "coalmine.compare.kind"
COMPARE_MAX_ABS_DIFF: Final = "coalmine.compare.max_abs_diff"
COMPARE_DIFF_BUCKET: Final = "coalmine.compare.diff_bucket"
COMPARE_OUTPUTS_DIFFERING: Final = "coalmine.compare.outputs_differing"

# One event for each output that differs, under the compare span.
DIFFERENCE_EVENT: Final = "coalmine.compare.difference"
DIFFERENCE_NAME: Final = "name"
DIFFERENCE_KIND: Final = "kind"
DIFFERENCE_INDEX: Final = "index"
DIFFERENCE_EXPECTED: Final = "expected"
DIFFERENCE_ACTUAL: Final = "actual"

# Semantic conventions: RPC (https://opentelemetry.io/docs/specs/semconv/rpc/) and feature flags.
RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.status_code"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"
FLAG_KEY: Final = "feature_flag.key"
FLAG_VARIANT: Final = "feature_flag.result.variant"
FLAG_VERSION: Final = "feature_flag.version"

# ---------------------------------------------------------------- logging

_SHARED: Final[list[Any]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def configure_logging(service: str) -> None:
    """Log to standard error: for people on a terminal, else one JSON object a line.

    COALMINE_LOG_FORMAT (console, json) and COALMINE_LOG_LEVEL (debug … error) say otherwise.
    Raises StartError for a level that there isn't.
    """
    level = (os.environ.get("COALMINE_LOG_LEVEL") or "info").upper()
    if level not in logging.getLevelNamesMapping():
        raise StartError(f"COALMINE_LOG_LEVEL: expected debug … error, got '{level.lower()}'")
    structlog.configure(
        processors=[*_SHARED, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(service),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)


def _renderers(service: str) -> list[Any]:
    wanted = os.environ.get("COALMINE_LOG_FORMAT") or ("console" if sys.stderr.isatty() else "json")
    if wanted == "console":
        # Not rich's: it shows what every variable held, thus callers' data, and takes 20 ms.
        return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]

    def stamp(_logger: Any, _method: str, event: dict[str, Any]) -> dict[str, Any]:
        return {"service": service, **event}

    return [structlog.processors.format_exc_info, stamp, structlog.processors.JSONRenderer()]
