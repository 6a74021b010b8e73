"""Each verb's help has an example that parses, and one thing has one name."""

import inspect
import re
import shlex
from collections.abc import Iterator
from typing import Any, get_args

import click
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from coalmine_client.cli.lazy import installed_commands
from coalmine_client.cli.root import program


def verbs(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command that isn't a group."""
    for name in group.list_commands(None):
        _, command, _ = group.resolve_command(click.Context(group), [name])
        if hasattr(command, "list_commands"):
            yield from verbs(command, (*path, name))
        else:
            yield *path, name


ROOT = get_command(program(installed_commands()))
VERBS = sorted(verbs(ROOT))


def command_of(path: tuple[str, ...]) -> Any:
    found: Any = ROOT
    for name in path:
        _, found, _ = found.resolve_command(click.Context(found), [name])
    return found


def test_all_verbs_are_found() -> None:
    assert len(VERBS) >= 21
    assert ("router", "check") in VERBS
    assert ("server", "token") in VERBS


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_a_verbs_help_has_an_example_of_itself_that_parses(path: tuple[str, ...]) -> None:
    command = command_of(path)
    found = re.search(r"Example: (coalmine .*)", " ".join((command.help or "").split()))

    assert found is not None, f"no example in the help of {' '.join(path)}"
    words = shlex.split(found[1])
    assert tuple(words[1 : 1 + len(path)]) == path
    command.make_context(path[-1], words[1 + len(path) :])


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_the_example_is_shown(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(
        program(installed_commands()),
        [*path, "--help"],
        env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"},
    )

    assert shown.exit_code == 0
    assert f"Example: coalmine {' '.join(path)}" in shown.stdout


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_an_address_has_one_name(path: tuple[str, ...]) -> None:
    for option in command_of(path).params:
        if getattr(option, "hidden", False) or not isinstance(option.opts, list):
            continue
        assert "--address" not in option.opts
        assert "--target" not in option.opts


def test_the_name_of_before_still_works() -> None:
    done = CliRunner().invoke(
        program(installed_commands()),
        ["server", "models", "--address", "127.0.0.1:1", "--timeout", "0.2"],
    )

    assert "127.0.0.1:1" in done.stderr


# ---------------------------------------------------------------- server token


@pytest.mark.parametrize("expires", ["2020-01-01T00:00:00Z", "1970-01-01T00:00:00+05:00"])
def test_a_token_that_is_over_is_refused(expires: str) -> None:
    done = CliRunner().invoke(
        program(installed_commands()),
        ["server", "token", "a", "--role", "caller", "--expires", expires],
    )

    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr == f"coalmine: --expires: expected a time to come, got {expires}\n"


def test_a_token_that_will_be_over_is_made() -> None:
    arguments = ["server", "token", "a", "--role", "caller", "--expires", "2999-01-01T00:00:00Z"]

    assert CliRunner().invoke(program(installed_commands()), arguments).exit_code == 0


# ---------------------------------------------------------------- numbers


def numbers(path: tuple[str, ...]) -> Iterator[tuple[str, bool]]:
    """Yield the options of a verb that take a number, and whether it has to be whole."""
    command = command_of(path)
    said = inspect.signature(command.callback, eval_str=True).parameters
    for option in command.params:
        kind = get_args(said[option.name].annotation)[0]  # Annotated[int | None, …]
        kinds = {kind, *get_args(kind)} & {int, float}
        if kinds:
            yield option.opts[0], kinds == {int}


NUMBERS = [(*path, name) for path in VERBS for name, _ in numbers(path)]


def refused(*words: str) -> str:
    """Return in one line why an option's value is refused."""
    wide = {"COLUMNS": "300", "TERMINAL_WIDTH": "300"}
    done = CliRunner().invoke(program(installed_commands()), words, env=wide)
    assert (done.exit_code, done.stdout) == (2, "")
    return done.stderr


def test_all_options_that_take_a_number_are_found() -> None:
    assert len(NUMBERS) >= 25
    assert ("router", "run", "--workers") in NUMBERS
    assert ("history", "--expect-revision") not in NUMBERS
    assert ("weights", "--expect-revision") in NUMBERS
    assert ("infer", "--timeout") in NUMBERS


@pytest.mark.parametrize("value", ["\u0663", "1e1", "099", "+5", "-5", "1_0", " 5", "", "\uff15"])
@pytest.mark.parametrize("words", NUMBERS, ids=" ".join)
def test_a_number_is_written_in_plain_digits(words: tuple[str, ...], value: str) -> None:
    why = refused(*words, value)
    assert f"Invalid value for '{words[-1]}'" in why
    assert "digits 0 to 9" in why
    assert repr(value) in why


@pytest.mark.parametrize(
    "words",
    [(*path, name) for path in VERBS for name, whole in numbers(path) if whole],
    ids=" ".join,
)
def test_a_whole_number_has_no_fraction(words: tuple[str, ...]) -> None:
    assert "expected a whole number from" in refused(*words, "5.0")


@pytest.mark.parametrize("value", ["0", "65", "9" * 30, "9" * 5_000])
def test_a_number_out_of_bounds_is_told_them(value: str) -> None:
    why = refused("router", "run", "--workers", value)
    assert f"expected a whole number from 1 to 64, got '{value[:90]}" in why


@pytest.mark.parametrize("value", ["nan", "inf", "1e3", ".5", "5.", "0.0", "0"])
def test_a_time_in_seconds_is_written_plainly_too(value: str) -> None:
    assert "expected a number from 0.001 on" in refused("infer", "--timeout", value)
