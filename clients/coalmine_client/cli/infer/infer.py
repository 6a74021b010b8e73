"""`coalmine infer`."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeVar

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from coalmine.access.target import Target
from coalmine.command_line.connection_options import TargetMaker, with_target_options
from coalmine.command_line.failure import Failure, WrongUsage
from coalmine.command_line.number_options import decimal_option, whole_option
from coalmine.errors import InvalidTensor
from coalmine.inference import inference_pb2 as pb
from coalmine.shown_value import one_line
from coalmine_client.cli.call_failure import from_status, unreachable
from coalmine_client.cli.console import AsJson, show, show_json
from coalmine_client.cli.infer.bulk import CallTally, run_bulk
from coalmine_client.cli.infer.infer_requests import PlannedRequests, make_requests
from coalmine_client.cli.infer.infer_view import answer_json, answer_view, tally_json, tally_view
from coalmine_client.cli.infer.input_options import read_headers
from coalmine_client.client import TIMEOUT_S, Answer, AsyncClient

_CALLS_MAX = 1_000_000
_CONCURRENCY_MAX = 1_024

Found = TypeVar("Found")


_Target = Annotated[str, typer.Argument(metavar="TARGET", help="A server's or router's address.")]
_Model = Annotated[str, typer.Argument(metavar="MODEL")]
_Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="NAME=VALUE", help="NAME=@x.npy, NAME=@x.json or NAME=[[1, 2]]."
    ),
]
_Request = Annotated[
    Path | None,
    typer.Option("--request", metavar="FILE", help="A whole request as JSON, instead of inputs."),
]
_Version = Annotated[str, typer.Option(metavar="V", help="Empty: the server's choice.")]
_Outputs = Annotated[
    list[str] | None, typer.Option("--output", metavar="NAME", help="Only these; none: all.")
]
_Headers = Annotated[
    list[str] | None, typer.Option("--header", metavar="KEY=VALUE", help="Metadata to send.")
]
_Repeat = Annotated[int | None, whole_option(min=1, max=_CALLS_MAX, help="How many calls to make.")]
_Concurrency = Annotated[
    int, whole_option(min=1, max=_CONCURRENCY_MAX, help="How many of them at a time.")
]
_Rows = Annotated[
    bool,
    typer.Option("--rows", help="A call for each row of the inputs, and again from the first."),
]
_Timeout = Annotated[
    float, decimal_option("--timeout", metavar="SECONDS", min=0.001, help="For each call.")
]


@dataclass(frozen=True, slots=True)
class _Wanted:
    requests: PlannedRequests
    target: Target
    headers: Sequence[tuple[str, str | bytes]]
    timeout_s: float


@with_target_options
def infer(
    target: _Target,
    model: _Model,
    *,
    inputs: _Inputs = None,
    request: _Request = None,
    version: _Version = "",
    outputs: _Outputs = None,
    headers: _Headers = None,
    repeat: _Repeat = None,
    concurrency: _Concurrency = 1,
    rows: _Rows = False,
    timeout_s: _Timeout = TIMEOUT_S,
    target_at: TargetMaker,
    json: AsJson = False,
) -> None:
    """Call a model once and print its answer, or many times and print what was counted.

    Example: coalmine infer 127.0.0.1:8001 digits --input pixels=@images.npy
    """
    if request and (inputs or rows):
        raise WrongUsage("--request: a whole request, so without --input and --rows")
    wanted = _Wanted(
        PlannedRequests(model, version, inputs or (), request, outputs or ()),
        target_at(target),
        read_headers(headers or ()),
        timeout_s,
    )
    if rows or (repeat or 1) > 1:
        _call_many_times(wanted, repeat, concurrency, by_row=rows, json=json)
    else:
        _call_once(wanted, json=json)


def _call_once(wanted: _Wanted, *, json: bool) -> None:
    async def send_request(client: AsyncClient) -> tuple[Answer, float]:
        (request,) = await make_requests(wanted.requests, client, by_row=False)
        began_ns = time.perf_counter_ns()
        answer = await client.send(request, metadata=wanted.headers)
        return answer, (time.perf_counter_ns() - began_ns) / 1e6

    answer, ms = _run_with_client(wanted, send_request)
    if json:
        show_json(answer_json(answer, ms))
    else:
        show(answer_view(answer, ms))


def _call_many_times(
    wanted: _Wanted, repeat: int | None, concurrency: int, *, by_row: bool, json: bool
) -> None:
    """Call again and again, and print the counts. Raises Failure where a call failed."""

    async def call_all(client: AsyncClient) -> CallTally:
        requests = await make_requests(wanted.requests, client, by_row=by_row)
        calls = repeat or len(requests)

        async def send(request: pb.ModelInferRequest) -> Answer:
            return await client.send(request, metadata=wanted.headers)

        with _progress_bar(calls) as advance:
            return await run_bulk(
                send, requests, repeat=calls, concurrency=concurrency, progress=advance
            )

    tally = _run_with_client(wanted, call_all)
    if json:
        show_json(tally_json(tally))
    else:
        show(tally_view(tally, concurrency))
    if tally.failures:
        first = one_line(tally.first_error)
        raise Failure(f"{tally.failures:,} of {tally.calls:,} calls failed, the first: {first}")


# ---------------------------------------------------------------- calls


def _run_with_client(wanted: _Wanted, use: Callable[[AsyncClient], Awaitable[Found]]) -> Found:
    """Return what `use` returns for a client. Raises Failure where a call fails."""

    async def use_client() -> Found:
        async with _open_client(wanted) as client:
            try:
                return await use(client)
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.UNAVAILABLE and not client.is_connected:
                    raise unreachable("a server", wanted.target.address, error) from None
                raise from_status(error) from None

    try:
        return asyncio.run(use_client())
    except InvalidTensor as error:
        raise Failure(one_line(str(error))) from None


def _open_client(wanted: _Wanted) -> AsyncClient:
    to = wanted.target
    return AsyncClient(
        to.address,
        timeout_s=wanted.timeout_s,
        tls=to.tls,
        token=to.token,
        token_in_plaintext=to.token_in_plaintext,
    )


@contextmanager
def _progress_bar(calls: int) -> Iterator[Callable[[], None]]:
    """Draw a bar where standard error is a terminal; yield the function that advances it."""
    console = Console(stderr=True)
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("calls", total=calls)
        yield lambda: progress.advance(task)
