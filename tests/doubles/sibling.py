"""A package beside the client's, with a group and a function for the program to find."""

import typer

from coalmine.command_line.failure import Failure
from coalmine.errors import StartError

group = typer.Typer(help="A group.")


@group.command()
def run(*, port: int = 1) -> None:
    typer.echo(f"running on {port}")


@group.command()
def fail(why: str) -> None:
    raise StartError("no such folder") if why == "start" else Failure("it is so")


@group.command()
def interrupted() -> None:
    raise KeyboardInterrupt


def pack(source: str, *, name: str = "x") -> None:
    """Pack it."""
    typer.echo(f"packed {source} as {name}")
