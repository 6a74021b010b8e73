"""How answers are compared, as the file gives it."""

from pathlib import Path
from typing import Any

import pytest

from coalmine.errors import StartError
from coalmine.process.config_file import parse
from coalmine_router.config.compare_section import CompareConfig, rules_digest, unknown_outputs
from coalmine_router.config.json_path import path_steps


def rules(text: str) -> CompareConfig:
    return parse(text, CompareConfig, path=Path("r.yaml"))


def test_without_a_word_everything_is_close() -> None:
    found = rules("{}")
    assert (found.batched, found.default.rule, found.outputs) == ("auto", "close", {})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("batched: maybe", "batched: input should be 'auto', True or False, got 'maybe'"),
        ("default: {rule: close, rtol: -1}", "default.close.rtol: input should be greater"),
        ("default: {rule: close, atol: .inf}", "default.close.atol: input should be a finite"),
        ("default: {rtol: 1}", "default.rule: missing"),
        ("default: close", "default: input should be a valid dictionary"),
        ("default: {rule: exact, rtol: 1}", "default.exact.rtol: unknown key"),
        ("default: {rule: top_k}", "default.top_k.k: missing"),
        ("default: {rule: top_k, k: 0}", "default.top_k.k: input should be greater than or"),
        ("default: {rule: top_k, k: 5, min_overlap: 0}", "min_overlap: input should be greater"),
        ("default: {rule: top_k, k: 5, min_tau: 0.5}", "min_tau is of the order: it goes with"),
        ("default: {rule: top_k, k: 101, order: true}", "k is 100 at most"),
        ("default: {rule: cosine, min: 2}", "default.cosine.min: input should be less than"),
        ("default: {rule: distribution}", "default.distribution.from: missing"),
        ("default: {rule: distribution, from: guesses}", "'logits' or 'probabilities'"),
        ("default: {rule: distribution, from: logits, max: 2}", "max: input should be less"),
        ("default: {rule: json, ignore: [meta.ts]}", "ignore.0: expected a path such as $.meta.ts"),
        ("default: {rule: relative, max: .nan}", "default.relative.max: input should be"),
        ("outputs: {y: {rule: argmax, margin: -1}}", "outputs.y.argmax.margin: input should be"),
        ("outputs: {y: {rule: nosuch}}", "outputs.y: no rule 'nosuch', expected one of close, "),
        ("outputs: {y: {rule: [close]}}", "outputs.y: input tag"),
    ],
)
def test_a_wrong_rule_is_refused_by_its_place(text: str, told: str) -> None:
    with pytest.raises(StartError) as caught:
        rules(text)
    assert str(caught.value).startswith("r.yaml: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("$.a", ("a",)),
        ("$.a-b.c_d.é1", ("a-b", "c_d", "é1")),
        ("$.items[*].id", ("items", None, "id")),
        ("$[0][*].*", (0, None, None)),
        ("$['a.b [c]']['']", ("a.b [c]", "")),
    ],
)
def test_a_path_is_its_steps(path: str, expected: tuple[Any, ...]) -> None:
    assert path_steps(path) == expected


@pytest.mark.parametrize(
    "path", ["", "$", "a", "$a", "$.", "$..a", "$.a.", "$[", "$[-1]", "$[1:2]", "$.a b", "$[a]"]
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="expected a path such as"):
        path_steps(path)


SAID = "default: {rule: close}\noutputs: {a: {rule: exact}, b: {rule: top_k, k: 5}}"


@pytest.mark.parametrize(
    "text",
    [
        "outputs: {b: {k: 5, rule: top_k}, a: {rule: exact}}",
        "batched: auto\noutputs: {b: {rule: top_k, k: 5, min_overlap: 1}, a: {rule: exact}}",
    ],
)
def test_rules_that_say_the_same_have_one_digest(text: str) -> None:
    assert rules_digest(rules(text)) == rules_digest(rules(SAID))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        f"batched: true\n{SAID}",
        SAID.replace("k: 5", "k: 6"),
        SAID.replace("a:", "c:"),
        SAID.replace("{rule: close}", "{rule: close, rtol: 0}"),
    ],
)
def test_rules_that_say_something_else_have_another(text: str) -> None:
    assert rules_digest(rules(text)) != rules_digest(rules(SAID))


def test_a_digest_is_the_same_in_every_process_and_release() -> None:
    assert rules_digest(rules(SAID)) == "80394fc5cd82d5c0e94eaa8e2daa2644"


def test_outputs_that_a_model_has_not_are_named() -> None:
    assert unknown_outputs(rules(SAID), ["a", "other"]) == ["b"]
    assert unknown_outputs(rules(SAID), iter(["a", "b"])) == []
    assert unknown_outputs(rules("{}"), []) == []


def test_rules_can_be_written_down_and_read_again() -> None:
    found = rules("outputs: {y: {rule: distribution, from: logits}, z: {rule: json}}")
    assert CompareConfig.model_validate(found.model_dump()) == found
    assert CompareConfig.model_validate_json(found.model_dump_json()) == found
