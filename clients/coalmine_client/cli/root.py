"""The root of the program: its commands."""

from collections.abc import Iterable
from importlib.metadata import EntryPoint
from importlib.metadata import version as installed_version
from typing import Annotated, Any

import typer

from coalmine.process.exit_codes import INTERRUPTED
from coalmine_client.cli.infer.infer import infer
from coalmine_client.cli.lazy import LazyGroup, installed_commands
from coalmine_client.cli.mismatches.mismatches import mismatches
from coalmine_client.cli.protos import protos
from coalmine_client.cli.routes.history import history
from coalmine_client.cli.routes.routes import routes
from coalmine_client.cli.routes.shadow import shadow
from coalmine_client.cli.routes.trials import trials
from coalmine_client.cli.routes.weights import weights
from coalmine_client.cli.status.status import status
from coalmine_client.cli.traces.traces import traces


def run() -> None:
    """Run the program with the process's arguments, and exit."""
    program(installed_commands())(prog_name="coalmine")


def program(entries: Iterable[EntryPoint] = ()) -> typer.Typer:
    """Return the program, with the commands that `entries` name loaded when they are called."""
    group = type("Root", (_Root,), {"entries": {entry.name: entry for entry in entries}})
    app = typer.Typer(cls=group, no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_root)
    for verb in (
        routes,
        status,
        weights,
        shadow,
        history,
        trials,
        mismatches,
        traces,
        infer,
        protos,
    ):
        app.command()(verb)
    return app


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"coalmine {installed_version('coalmine')}")
        raise typer.Exit


def _root(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_say_version, is_eager=True, help="Print it and exit."),
    ] = False,
) -> None:
    """Serve models, split their traffic between versions, and compare what they predict."""


class _Root(LazyGroup):
    """The verbs of the client, and the groups of the other packages."""

    names_verbs = True

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
