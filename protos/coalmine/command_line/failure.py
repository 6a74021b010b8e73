"""How a verb fails: with one line on standard error, and an exit code."""

from typing import Any, ClassVar, NoReturn

import typer
from typer.core import TyperGroup

from coalmine.errors import StartError
from coalmine.process.exit_codes import EXIT_CANNOT_START, EXIT_FAILED
from coalmine.process.standard_streams import print_error_line


class Failure(Exception):
    """The verb can't do what was asked; its text is the line that the operator reads."""

    exit_code: ClassVar[int] = EXIT_FAILED


class WrongUsage(Failure):
    """The command line, or a file that it names, is wrong and would be wrong again."""

    exit_code = EXIT_CANNOT_START


class VerbGroup(TyperGroup):
    """The one place where what a verb raises becomes a line and an exit code."""

    # Whether the line of a Failure begins with the verb's name.
    names_verbs: ClassVar[bool] = False

    def invoke(self, ctx: Any) -> Any:
        """Run the verb. Raises typer.Exit."""
        try:
            return super().invoke(ctx)
        except Failure as error:
            verb = f"{ctx.invoked_subcommand}: " if self.names_verbs else ""
            _print_and_exit(f"{verb}{error}", error.exit_code)
        except StartError as error:
            _print_and_exit(str(error), EXIT_CANNOT_START)


def _print_and_exit(line: str, exit_code: int) -> NoReturn:
    print_error_line(line)
    raise typer.Exit(exit_code) from None
