"""What a server says is one line, and nothing that a terminal would obey."""

import pytest

from coalmine_server.cli.server_call import printable_line


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("loaded", "loaded"),
        ("two\nlines,  and spaces ", "two lines, and spaces"),
        ("\x1b[31mred\x1b[0m", "�[31mred�[0m"),
        ("bell\x07 and\r return", "bell� and return"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_obey_is_replaced(said: str, shown: str) -> None:
    assert printable_line(said) == shown
