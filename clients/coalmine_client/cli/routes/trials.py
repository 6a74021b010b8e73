"""`coalmine trials`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from coalmine.command_line.number_options import whole_option
from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.console import BAD, AsJson, add_row, line, moment, show, show_json, table
from coalmine_client.cli.control import TIMEOUT_S, ControlClient, calling
from coalmine_client.cli.message_json import message_json
from coalmine_client.cli.percents import share_text
from coalmine_client.cli.verdict_view import verdict_word, versions_text

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub


@calling
def trials(
    route: Annotated[str, typer.Argument(metavar="ROUTE")],
    *,
    candidate: Annotated[
        str, typer.Option(metavar="NAME", help="Only those of this candidate.")
    ] = "",
    limit: Annotated[int, whole_option(min=1, max=1_000, help="How many trials.")] = 20,
    json: AsJson = False,
    control: ControlClient,
) -> None:
    """List a route's trials: what was found under which versions and rules; the newest first.

    Example: coalmine trials digits --candidate canary
    """
    wanted = pb.ListTrialsRequest(route=route, candidate=candidate, limit=limit)

    async def list_trials(router: "RouteControlAsyncStub") -> pb.ListTrialsResponse:
        return await router.ListTrials(wanted, timeout=TIMEOUT_S)

    found = control.ask(list_trials)
    if json:
        show_json(message_json(found))
    else:
        show(trials_view(found))


def trials_view(found: pb.ListTrialsResponse) -> RenderableType:
    """Return a row for each trial."""
    if not found.trials:
        return line("no trials")
    rows = table(
        ">trial",
        "of",
        "versions",
        "=began",
        "=ended",
        "why",
        ">match",
        ">mismatch",
        ">error",
        ">rate",
        "verdict",
    )
    for of in found.trials:
        add_row(
            rows,
            str(of.trial.number),
            f"{of.candidate} against {of.reference}",
            versions_text(of.trial),
            moment(of.trial.began_ns),
            moment(of.trial.ended_ns),
            of.trial.why,
            f"{of.match:,}",
            (f"{of.mismatch:,}", BAD if of.mismatch else ""),
            (f"{of.error:,}", BAD if of.error else ""),
            share_text(of.mismatch_rate.value) if of.HasField("mismatch_rate") else "-",
            verdict_word(of.verdict.verdict),
        )
    return rows
