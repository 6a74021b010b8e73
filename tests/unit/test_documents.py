"""The documents say what is true: commands exist with their options, links lead somewhere."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coalmine_client.cli.lazy import installed_commands
from coalmine_client.cli.root import program
from coalmine_router.config.file import read_config

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(ROOT / "docs").rglob("*.md"),
    ROOT / "deploy" / "README.md",
    ROOT / "examples" / "digits" / "README.md",
    *(ROOT / "clients" / name / "README.md" for name in ("go", "java", "node")),
]
GROUPS = {"server", "router"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, language: str) -> Iterator[str]:
    yield from re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def commands() -> Iterator[tuple[str, list[str]]]:
    """Yield each `coalmine …` of the documents' shell blocks, with the document's name."""
    for path in DOCUMENTS:
        for block in blocks(path, "sh"):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if "coalmine" in words:
                    said = words[words.index("coalmine") + 1 :]
                    yield name_of(path), [word for word in said if word != "&"]


@cache
def help_of(*verb: str) -> str:
    done = CliRunner().invoke(program(installed_commands()), [*verb, "--help"], terminal_width=200)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_documents_have_commands_to_check() -> None:
    assert len(list(commands())) > 20


@pytest.mark.parametrize(("document", "words"), list(commands()), ids=str)
def test_every_command_exists_with_its_options(document: str, words: list[str]) -> None:
    verb = words[:2] if words[0] in GROUPS else words[:1]
    text = help_of(*verb)
    for option in [word.partition("=")[0] for word in words if word.startswith("--")]:
        assert option in text, f"{document}: coalmine {' '.join(verb)} has no {option}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    prose = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", prose):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), target


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {
        found
        for path in DOCUMENTS
        for block in blocks(path, "sh")
        for found in re.findall(r"^make (\w+)", block, re.MULTILINE)
    }
    assert {"demo", "test", "bench"} <= named
    assert named <= set(re.findall(r"^(\w+):", makefile, re.MULTILINE))


def test_every_part_of_the_tests_that_is_named_exists() -> None:
    named = {
        found
        for path in DOCUMENTS
        for block in blocks(path, "sh")
        for found in re.findall(r"\btests/[\w/.]+", block)
    }
    assert {"tests/unit"} < named
    assert all((ROOT / each).exists() for each in named), named


def test_the_routers_file_in_the_readme_is_a_good_one(tmp_path: Path) -> None:
    [text] = blocks(ROOT / "README.md", "yaml")
    file = tmp_path / "router.yaml"
    file.write_text(text)
    assert read_config(file).table().route("digits").shadows_bp == {"canary": 10_000}
