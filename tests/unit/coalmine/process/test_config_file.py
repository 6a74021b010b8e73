import time
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from coalmine.errors import StartError
from coalmine.process.config_file import Duration, Size, Strict, load
from coalmine.units import duration_ns


class Small(Strict):
    name: str = ""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name: [", "not YAML: line 1"),
        ("name: 2026-13-45", "not YAML: month must be in"),
        ("name: !!int x", "not YAML: invalid literal"),
        ("name: " + "1" * 5_001, "not YAML: Exceeds the limit"),
        ("[" * 3_000, "not YAML: maximum recursion"),
        ("name: 5", "name: input should be a valid string, got 5"),
        ("nmae: a", "nmae: unknown key"),
        ("- a", "the file: input should be a valid dictionary"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_what_is_wrong(
    text: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(text)
    with pytest.raises(StartError) as caught:
        load(file, Small)
    assert str(caught.value).startswith(f"{file}: {why}")
    assert "\n" not in str(caught.value)


class Part(Strict):
    took: Annotated[Duration, Field(le=60 * 10**9)] = 0
    size: Annotated[Size, Field(le=16 * 1024**2)] = 0
    names: tuple[int, ...] = ()


class Whole(Strict):
    part: Part = Part()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("part: 5", "part: input should be a valid dictionary, got 5"),
        ("part: {took: 2h}", "part.took: input should be less than or equal to 60s, got '2h'"),
        (
            "part: {size: 1GiB}",
            "part.size: input should be less than or equal to 16MiB, got '1GiB'",
        ),
        (
            f"part: {{names: {'x' * 200}}}",
            f"part.names: input should be a valid tuple, got '{'x' * 99}…",
        ),
    ],
)
def test_what_is_wrong_is_told_in_the_words_of_the_file(
    text: str, told: str, tmp_path: Path
) -> None:
    file = tmp_path / "whole.yaml"
    file.write_text(text)
    with pytest.raises(StartError) as caught:
        load(file, Whole)
    assert str(caught.value) == f"{file}: {told}"


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no such file"):
        load(tmp_path / "absent.yaml", Small)
    with pytest.raises(StartError, match="is a directory"):
        load(tmp_path, Small)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StartError, match="not a text file"):
        load(tmp_path / "binary", Small)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [("2ms", 2_000_000), ("1.5s", 1_500_000_000), ("5m", 300 * 10**9), ("1h", 3_600 * 10**9)],
)
def test_a_duration_is_read_exactly(text: str, nanoseconds: int) -> None:
    assert duration_ns(text) == nanoseconds


@pytest.mark.parametrize("wrong", ["", "5", "5 weeks", "-1s", "1e3s", "05s", "\u0663s", 5, None])
def test_what_is_no_duration_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="expected a duration"):
        duration_ns(wrong)


class Versions(Strict):
    sha256: dict[str, str] = {}  # noqa: RUF012 - pydantic copies defaults


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("name: a\nname: b\n", "line 2: key 'name' is there twice, first in line 1"),
        ("{name: a, 'name': b}", "line 1: key 'name' is there twice, first in line 1"),
        ("sha256:\n  '1': a\n  2: b\n  1: c\n", "line 4: key '1' is there twice, first in line 2"),
    ],
)
def test_a_key_that_comes_twice_is_refused_with_its_lines(
    tmp_path: Path, text: str, why: str
) -> None:
    file = tmp_path / "twice.yaml"
    file.write_text(text)
    with pytest.raises(StartError) as caught:
        load(file, Versions)
    assert str(caught.value) == f"{file}: not YAML: {why}"


def test_a_key_may_come_again_elsewhere_and_over_what_is_merged(tmp_path: Path) -> None:
    class Two(Strict):
        one: dict[str, str]
        other: dict[str, str]

    file = tmp_path / "merged.yaml"
    file.write_text("one: &one {a: x, b: y}\nother: {<<: *one, b: z}\n")
    assert load(file, Two).other == {"a": "x", "b": "z"}


# ---------------------------------------------------------------- aliases, and long values

DOUBLED = "".join(f"- &a{n + 1} [*a{n}, *a{n}]\n" for n in range(25))
MERGED = "".join(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}], k{n}: 1}}\n" for n in range(25))
KEYED = "".join(f"- &a{n + 1} {{x: *a{n}, y: *a{n}}}\n" for n in range(25))
LONG = f"- &a {'x' * 1000}\n- [{', '.join(['*a'] * 1000)}]\n"


@pytest.mark.parametrize(
    "text",
    [
        f"- &a0 [x]\n{DOUBLED}",
        f"a0: &a0 {{x: 1}}\n{MERGED}",
        f"- &a0 {{x: 1}}\n{KEYED}",
        LONG,
        "name: &a [*a]",
    ],
    ids=["lists", "merged", "mappings", "a long text", "itself"],
)
def test_aliases_that_expand_are_refused_at_once(text: str, tmp_path: Path) -> None:
    file = tmp_path / "bomb.yaml"
    file.write_text(text)
    began_s = time.monotonic()
    with pytest.raises(StartError, match="not YAML: its aliases expand too far"):
        load(file, Small)
    assert time.monotonic() - began_s < 2


class Settings(Strict):
    wait: Duration = 0
    name: str = ""


@pytest.mark.parametrize("name", ["wait", "name"])
@pytest.mark.parametrize(
    "value", [f"[{', '.join(['x'] * 9_000)}]", f"[{'y' * 9_000}]", "{a: " * 90 + "x" + "}" * 90]
)
def test_what_is_wrong_is_shown_cut(name: str, value: str, tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text(f"{name}: {value}")
    with pytest.raises(StartError, match=f"{name}: .*got ") as caught:
        load(file, Settings)
    assert len(str(caught.value)) < len(str(file)) + 250


def test_a_key_is_shown_cut(tmp_path: Path) -> None:
    file = tmp_path / "long.yaml"
    file.write_text(f"{'k' * 1_000}: 1")
    with pytest.raises(StartError, match="unknown key") as caught:
        load(file, Settings)
    assert len(str(caught.value)) < len(str(file)) + 250


@pytest.mark.parametrize("text", ["- ", "[", "? ", "{a: "])
def test_a_file_of_any_depth_is_refused_and_no_more(text: str, tmp_path: Path) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(text * 100_000)
    with pytest.raises(StartError, match="not YAML"):
        load(path, Small)


@pytest.mark.parametrize(("depth", "why"), [(50, "got"), (150, "got"), (5_000, "not YAML")])
def test_a_file_that_is_good_but_deep_is_read_or_refused(
    depth: int, why: str, tmp_path: Path
) -> None:
    path = tmp_path / "deep.yaml"
    path.write_text(f"name: {'[' * depth}x{']' * depth}")
    with pytest.raises(StartError, match=why):
        load(path, Small)
