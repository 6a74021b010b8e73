"""Rules that an installed package brings, by a real entry point."""

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coalmine.errors import StartError
from coalmine.process.config_file import parse
from coalmine_router.config.compare_section import CompareConfig, rules_digest
from coalmine_router.observer.comparison.job import ComparisonJob, JobResults, results_of
from coalmine_router.observer.comparison.result import ComparedAnswer, Element, RuleWarning
from coalmine_router.observer.comparison.rules import OWN_ROWS_MAX
from coalmine_router.own_rule import OwnRule
from tests.doubles.oip_backend import response_body
from tests.doubles.own_rules import install_rules

MODULE = '''
"""Rules for a test."""

from typing import ClassVar

from coalmine_router.own_rule import OwnRule, RowResult


class Within(OwnRule):
    """The sums of rows are within `most` of each other."""

    datatypes: ClassVar[frozenset[str]] = frozenset({"FP64", "INT64"})

    most: float = 1.0

    def measure(self, reference, candidate):
        apart = abs(float(reference.sum()) - float(candidate.sum()))
        return RowResult(apart > self.most, apart, f"{reference.sum()}", f"{candidate.sum()}")


class Raising(OwnRule):
    """Raises."""

    def measure(self, reference, candidate):
        raise KeyError("no such thing" * 100)


class Careless(OwnRule):
    """Returns something else."""

    def measure(self, reference, candidate):
        return True


class Meddling(OwnRule):
    """Writes into what it gets."""

    def measure(self, reference, candidate):
        candidate[...] = 0


class Unfinished(OwnRule):
    """Has no measure."""
'''

RULES = {
    "within": "acme_rules:Within",
    "raising": "acme_rules:Raising",
    "careless": "acme_rules:Careless",
    "meddling": "acme_rules:Meddling",
    "unfinished": "acme_rules:Unfinished",
    "function": "acme_rules:ClassVar",
    "gone": "acme_rules:Gone",
    "broken": "acme_broken:Rule",
    "close": "acme_rules:Within",
}


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a package, as pip leaves it, for one test."""
    install_rules(tmp_path, MODULE, RULES)
    (tmp_path / "acme_broken.py").write_text("raise OSError('no licence')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "acme_rules", raising=False)
    return tmp_path


def rules(**rule: Any) -> CompareConfig:
    return CompareConfig.model_validate({"outputs": {"y": rule}})


def refusal(rule: str) -> str:
    with pytest.raises(StartError) as caught:
        parse(f"default: {{rule: {rule}}}", CompareConfig, path=Path("r.yaml"))
    return str(caught.value)


REFERENCE = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
CANDIDATE = REFERENCE + np.array([[0.1, 0.0], [9.0, 0.0], [0.0, -2.0]])


def job(
    chosen: CompareConfig, reference: Any = REFERENCE, candidate: Any = CANDIDATE
) -> ComparisonJob:
    answers = (
        ComparedAnswer(response_body(y=reference)),
        ComparedAnswer(response_body(y=candidate)),
    )
    return ComparisonJob(answers, ((0, 1),), chosen)


# ---------------------------------------------------------------- in the file


def test_a_rule_of_an_installed_package_is_used_by_its_name_with_its_settings() -> None:
    chosen = rules(rule="within", most=2.5).outputs["y"]
    assert isinstance(chosen, OwnRule)
    assert (chosen.rule, type(chosen).__name__) == ("within", "Within")
    assert chosen.model_dump() == {"rule": "within", "most": 2.5}


def test_its_settings_are_checked_like_ours() -> None:
    text = "outputs: {y: {rule: within, most: soon}}"
    with pytest.raises(StartError, match=r"r\.yaml: outputs\.y\.most: input should be a valid num"):
        parse(text, CompareConfig, path=Path("r.yaml"))
    with pytest.raises(StartError, match=r"outputs\.y\.least: unknown key"):
        parse("outputs: {y: {rule: within, least: 1}}", CompareConfig, path=Path("r.yaml"))


def test_an_unknown_rule_is_refused_with_the_names_there_are() -> None:
    assert refusal("wihtin") == (
        "r.yaml: default: no rule 'wihtin', expected one of close, exact, relative, argmax, top_k, "
        "cosine, distribution, bytes, json, ignore, broken, careless, function, gone, meddling, "
        "raising, unfinished, within"
    )


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("broken", "rule 'broken' (acme_broken:Rule) can't be loaded: OSError: no licence"),
        ("gone", "rule 'gone' (acme_rules:Gone) can't be loaded: AttributeError"),
        ("function", "rule 'function' (acme_rules:ClassVar) is no OwnRule with a measure"),
        ("unfinished", "rule 'unfinished' (acme_rules:Unfinished) is no OwnRule with a measure"),
    ],
)
def test_what_is_no_rule_is_refused_when_the_file_is_read(rule: str, told: str) -> None:
    assert told in refusal(rule)


def test_our_own_names_are_ours() -> None:
    assert type(rules(rule="close").outputs["y"]).__name__ == "CloseRule"


def test_its_settings_and_its_class_are_in_the_digest() -> None:
    assert rules_digest(rules(rule="within")) == rules_digest(rules(rule="within", most=1.0))
    assert rules_digest(rules(rule="within")) != rules_digest(rules(rule="within", most=2.0))
    assert rules_digest(rules(rule="raising")) != rules_digest(rules(rule="careless"))


# ---------------------------------------------------------------- at work


def test_it_is_asked_row_by_row() -> None:
    (found,) = results_of(job(rules(rule="within"))).comparisons
    assert (found.outcome, found.rows, found.rows_mismatch) == ("mismatch", 3, 2)
    (difference,) = found.differences
    assert difference.worst == (Element((1,), "7.0", "16.0"), Element((2,), "11.0", "9.0"))
    assert (difference.rule, difference.score) == ("within", 9.0)


def test_a_row_that_is_one_number_is_an_array_too() -> None:
    found = results_of(job(rules(rule="within"), np.array([1.0, 2.0]), np.array([1.0, 9.0])))
    assert found.comparisons[0].rows_mismatch == 1


def warned(results: JobResults) -> RuleWarning:
    assert (results.comparisons[0].outcome, results.comparisons[0].kind) == ("skipped", "rule")
    (found,) = results.warnings
    return found


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("raising", "KeyError: 'no such thing"),
        ("careless", "RuleFailed: measure returned bool, no RowResult"),
        ("meddling", "ValueError: assignment destination is read-only"),
    ],
)
def test_a_rule_that_fails_costs_its_output_and_is_warned_of(rule: str, told: str) -> None:
    found = warned(results_of(job(rules(rule=rule))))
    assert (found.kind, found.output) == ("rule_failed", "y")
    assert found.text.startswith(told)
    assert len(found.text) <= 200


def test_a_datatype_that_it_does_not_take_is_not_given_to_it() -> None:
    found = warned(
        results_of(job(rules(rule="within"), REFERENCE.astype("f4"), CANDIDATE.astype("f4")))
    )
    assert found == RuleWarning("rule_unfit", "y", "within takes no FP32")


def test_more_rows_than_it_could_get_through_are_not_given_to_it() -> None:
    many = np.zeros(OWN_ROWS_MAX + 1)
    assert warned(results_of(job(rules(rule="within"), many, many))).kind == "rule_unfit"


def test_it_works_in_another_process(installed: Path) -> None:
    code = (
        "import pickle, sys; from coalmine_router.observer.comparison.job import results_of;"
        "sys.stdout.buffer.write(pickle.dumps(results_of(pickle.load(sys.stdin.buffer))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(job(rules(rule="within"))),
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        check=True,
    )
    assert pickle.loads(done.stdout) == results_of(job(rules(rule="within")))
