"""docs/comparing.md says what is true: its files are good ones, its rules and defaults ours."""

import re
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from coalmine.process.config_file import Strict, parse
from coalmine_router.config.compare_section import CompareConfig
from coalmine_router.observer.comparison.closeness import TOLERANCES
from coalmine_router.observer.comparison.job import ComparisonJob, results_of
from coalmine_router.observer.comparison.result import KINDS, ComparedAnswer
from coalmine_router.observer.comparison.vectors import distribution
from tests.doubles.oip_backend import response_body
from tests.doubles.own_rules import install_rules

DOCUMENT = (Path(__file__).parents[5] / "docs" / "comparing.md").read_text()


class Part(Strict):
    """What a block of the document is of a route."""

    compare: CompareConfig


def blocks(language: str) -> list[str]:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)
    return found


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install the rule that the document writes, as it writes it."""
    [code], [project] = blocks("python"), blocks("toml")
    rules = tomllib.loads(project)["project"]["entry-points"]["coalmine.rules"]
    install_rules(tmp_path, code, rules)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_rules", raising=False)


def read(text: str) -> CompareConfig:
    return parse(text, Part, path=Path("comparing.md")).compare


@pytest.mark.parametrize("text", blocks("yaml"))
def test_every_file_in_it_can_be_read(text: str) -> None:
    assert read(text)


def test_it_shows_every_rule() -> None:
    shown = {rule.rule for text in blocks("yaml") for rule in read(text).outputs.values()}
    told = set(re.findall(r"^\| `(\w+)` \|", DOCUMENT, re.MULTILINE))
    assert told == shown - {"within"}
    assert told == {
        *("close", "exact", "relative", "argmax", "top_k", "cosine", "distribution"),
        *("bytes", "json", "ignore"),
    }


def test_the_rule_that_it_writes_works() -> None:
    chosen = read(blocks("yaml")[-1])
    reference, near, far = np.eye(6)[[0]], np.eye(6)[[2]], np.eye(6)[[3]]
    answers = tuple(
        ComparedAnswer(response_body(histogram=each)) for each in (reference, near, far)
    )
    same, other = results_of(ComparisonJob(answers, ((0, 1), (0, 2)), chosen)).comparisons
    assert (same.outcome, other.outcome) == ("match", "mismatch")
    assert other.differences[0].worst[0].actual == "3 away"


def test_its_tolerances_are_the_defaults() -> None:
    for datatype, (rtol, atol) in TOLERANCES.items():
        (row,) = re.findall(rf"^\| {datatype} \| (\S+) \| (\S+) \|$", DOCUMENT, re.MULTILINE)
        assert tuple(map(float, row)) == (rtol, atol)


def test_its_coins_diverge_as_it_says() -> None:
    for share, told in ((0.55, 0.002), (0.6, 0.007)):
        found = distribution(
            np.array([[0.5, 0.5]]), np.array([[share, 1 - share]]), source="probabilities", most=0
        )
        assert round(found.score or 0, 3) == told


def test_its_kinds_come_in_our_order() -> None:
    text = " ".join(DOCUMENT.split())
    assert f"has the first kind in this order: {', '.join(KINDS)}." in text
