"""Commands whose packages are imported when somebody calls them, and not before.

`coalmine routes` must not import a server, nor `coalmine --help` torch. So the root has a stand-in
with a line of help for each such command, and imports the real one when it is called.
"""

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, ClassVar, Final

import typer
from typer.core import TyperCommand
from typer.main import get_command, get_group

from coalmine.command_line.failure import VerbGroup
from coalmine.errors import StartError
from coalmine.process.early_signals import leave_hangup_to_system, leave_signals_to_python
from coalmine.shown_value import one_line

GROUP: Final = "coalmine.commands"

_HELP: Final = {
    "server": "Serve TorchScript models; inspect and change what a server serves.",
    "package": "Put a TorchScript file into a model repository.",
    "router": "Split, shadow and compare traffic between model versions.",
    "demo": "Run the whole thing on this machine, with real data.",
}
# Of which a command reads its file again.
_TAKES_HANGUP: Final = "router"
_EXTRA: Final = {"server": "server", "package": "server", "router": "router", "demo": "demo"}


def installed_commands() -> list[EntryPoint]:
    """Return the commands that installed packages offer, without importing them."""
    order = list(_HELP)
    return sorted(
        entry_points(group=GROUP),
        key=lambda each: order.index(each.name) if each.name in order else 99,
    )


class LazyGroup(VerbGroup):
    """A group whose `entries` are imported when they are called."""

    entries: ClassVar[Mapping[str, EntryPoint]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for name in self.entries:
            self.add_command(TyperCommand(name, help=_HELP.get(name)))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that `args` begins with, and the rest. Called to run it, not for help.

        Raises StartError where its package lacks something.
        """
        name, command, rest = super().resolve_command(ctx, args)
        entry = self.entries.get(name or "")
        if entry is None:  # a verb of ours; a server's go on without Python's way for long
            leave_signals_to_python()
        if name != _TAKES_HANGUP:
            leave_hangup_to_system()
        return name, _load_command(entry) if entry else command, rest


def _load_command(entry: EntryPoint) -> Any:
    try:
        loaded = entry.load()
    except ImportError as error:
        why = one_line(str(error))
        raise StartError(f"{entry.name} is not installed: {why}{_remedy(entry.name)}") from None
    if isinstance(loaded, typer.Typer):
        return get_group(loaded)
    single = typer.Typer(add_completion=False)
    single.command(entry.name)(loaded)
    return get_command(single)


def _remedy(name: str) -> str:
    return f"; try: pip install 'coalmine[{_EXTRA[name]}]'" if name in _EXTRA else ""
