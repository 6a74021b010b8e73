"""`coalmine mismatches`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coalmine.command_line.failure import WrongUsage
from coalmine.command_line.number_options import whole_option
from coalmine.control.v1 import control_pb2 as pb
from coalmine_client.cli.console import AsJson, line, show, show_json
from coalmine_client.cli.control import TIMEOUT_S, ControlClient, calling
from coalmine_client.cli.message_json import message_json
from coalmine_client.cli.mismatch_bodies import read_bodies
from coalmine_client.cli.mismatches.export import Export, Written, export_of, write_export
from coalmine_client.cli.mismatches.mismatch_view import mismatch_view, mismatches_view

if TYPE_CHECKING:
    from coalmine.control.v1.control_pb2_grpc import RouteControlAsyncStub

_HERE = Path()


@calling
def mismatches(
    route: Annotated[str, typer.Argument(metavar="ROUTE")],
    *,
    output: Annotated[
        str, typer.Option(metavar="NAME", help="Only those in which this output differs.")
    ] = "",
    candidate: Annotated[
        str, typer.Option(metavar="VARIANT", help="Only those of this candidate.")
    ] = "",
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="Only those of this kind: value, shape, nan, …")
    ] = "",
    worst: Annotated[
        bool, typer.Option("--worst", help="The worst first, instead of the newest.")
    ] = False,
    limit: Annotated[int, whole_option(min=1, max=1_000, help="How many examples.")] = 20,
    show_id: Annotated[
        str, typer.Option("--show", metavar="ID", help="Show this one, tensor by tensor.")
    ] = "",
    export_id: Annotated[
        str, typer.Option("--export", metavar="ID", help="Write this one as ID.npz and ID.json.")
    ] = "",
    to: Annotated[Path, typer.Option(metavar="DIR", help="Where --export writes.")] = _HERE,
    force: Annotated[bool, typer.Option("--force", help="Let --export overwrite files.")] = False,
    json: AsJson = False,
    control: ControlClient,
) -> None:
    """List the kept examples of answers that differ, show one, or export it; the newest first.

    Example: coalmine mismatches digits --worst --limit 5
    """
    if show_id and export_id:
        raise WrongUsage("--show and --export: expected one of them")
    if (force or to != _HERE) and not export_id:
        raise WrongUsage("--to and --force go with --export")
    if export_id:
        _export_one(_get_mismatch(route, export_id, control), export_id, to, force=force, json=json)
    elif show_id:
        _show_one(_get_mismatch(route, show_id, control), json=json)
    else:
        wanted = pb.ListMismatchesRequest(
            route=route, output=output, candidate=candidate, kind=kind, worst=worst, limit=limit
        )
        _show_list(wanted, control, json=json)


def _show_list(wanted: pb.ListMismatchesRequest, control: ControlClient, *, json: bool) -> None:
    async def list_mismatches(router: "RouteControlAsyncStub") -> pb.ListMismatchesResponse:
        return await router.ListMismatches(wanted, timeout=TIMEOUT_S)

    found = control.ask(list_mismatches)
    if json:
        show_json(message_json(found))
    else:
        show(mismatches_view(found))


def _get_mismatch(route: str, record_id: str, control: ControlClient) -> pb.Mismatch:
    async def get_mismatch(router: "RouteControlAsyncStub") -> pb.Mismatch:
        wanted = pb.GetMismatchRequest(route=route, id=record_id)
        return await router.GetMismatch(wanted, timeout=TIMEOUT_S)

    return control.ask(get_mismatch)


def _show_one(found: pb.Mismatch, *, json: bool) -> None:
    kept = read_bodies(found)
    if json:
        show_json({**message_json(found), **kept.as_json()})
    else:
        show(mismatch_view(found, kept))


def _export_one(
    found: pb.Mismatch, record_id: str, folder: Path, *, force: bool, json: bool
) -> None:
    export = export_of(found, read_bodies(found))
    written = write_export(export, record_id, folder, force=force)
    if json:
        show_json({"id": found.id, **written.as_json(), "missing": list(export.missing)})
    else:
        _show_written(export, written)


def _show_written(export: Export, written: Written) -> None:
    if written.npz:
        show(line(f"wrote {written.npz}: {', '.join(export.arrays)}"))
    if written.request:
        show(line(f"wrote {written.request}: the request; replay it with"))
        show(line(f"  {written.replay}"))
    for each in export.missing:
        show(line(f"note: {each}"))
