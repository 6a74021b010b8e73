from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import StartError
from coalmine.process import config_file
from coalmine_server.config import ModelConfig
from coalmine_server.packaging.declaration import (
    Declaration,
    load_or_make_config_text,
    tensor_entry,
    text_with_entries,
    text_with_entry,
)

ONE = Declaration(("x:FP32:[2]",), ("y:INT64:[]",), 8)
SHA = "a" * 64


def config_of(text: str) -> ModelConfig:
    return config_file.parse(text, ModelConfig, path=Path("config.yaml"))


def test_a_tensor_is_a_name_a_datatype_and_sizes() -> None:
    assert tensor_entry("a.b:INT8:[-1, 2]") == {"name": "a.b", "datatype": "INT8", "shape": [-1, 2]}
    assert tensor_entry("x:FP32:[]")["shape"] == []
    assert tensor_entry("x:FP32:[3]:optional")["optional"] is True


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", "x:FP32", "x:FP32:2", "x:FP32:[a]", ":FP32:[1]", "x:FP32:[1]:needed"),
        *("x:FP32:[٣]", "x:FP32:[04]", "x:FP32:[1_0]", "x:FP32:[1e1]"),
    ],
)
def test_other_text_is_no_tensor(text: str) -> None:
    with pytest.raises(StartError, match="is not a tensor: expected NAME:DATATYPE:"):
        tensor_entry(text)


def test_a_new_config_says_what_was_declared(tmp_path: Path) -> None:
    declared = Declaration(
        ("x:FP32:[2,-1]", "m:BOOL:[2]:optional"), ("y:FP32:[2]",), 8, "2ms", 2, 3
    )
    config = config_of(load_or_make_config_text(tmp_path / "config.yaml", declared))
    assert [each.optional for each in config.inputs] == [False, True]
    assert config.inputs[0].shape == (2, -1)
    assert (config.batching.max_delay, config.instances, config.versions.latest) == (
        2_000_000,
        2,
        3,
    )


def test_a_new_model_serves_two_versions_unless_told(tmp_path: Path) -> None:
    assert config_of(load_or_make_config_text(tmp_path / "config.yaml", ONE)).versions.latest == 2


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        (Declaration(), "needs --input and --output"),
        (Declaration(("x:FP32:[2]",), ("y:FP32:[2]",)), "needs --max-batch-size"),
    ],
)
def test_a_new_model_needs_a_whole_declaration(
    tmp_path: Path, declared: Declaration, why: str
) -> None:
    with pytest.raises(StartError, match=why):
        load_or_make_config_text(tmp_path / "config.yaml", declared)


@pytest.mark.parametrize(
    ("declared", "why"),
    [
        (Declaration(("x:FP64:[2]",)), "inputs: expected x:FP32:[2], got x:FP64:[2]"),
        (Declaration(("x:FP32:[2]:optional",)), "expected x:FP32:[2], got x:FP32:[2]:optional"),
        (Declaration(outputs=("y:INT64:[1]",)), "outputs: expected y:INT64:[], got y:INT64:[1]"),
        (Declaration(max_batch_size=16), "max_batch_size: expected 8, got 16"),
        (Declaration(max_delay="2ms"), "batching.max_delay: expected 0, got 2000000"),
        (Declaration(instances=2), "instances: expected 1, got 2"),
        (Declaration(max_delay="soon"), "--max-delay: expected a duration"),
        (Declaration(("x:FP31:[2]",)), "x:FP31:[2]: Value error, expected one of BOOL"),
    ],
)
def test_what_is_said_otherwise_than_the_config_is_refused(
    tmp_path: Path, declared: Declaration, why: str
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(load_or_make_config_text(path, ONE))
    with pytest.raises(StartError) as refused:
        load_or_make_config_text(path, declared)
    assert why in str(refused.value)


def test_what_is_said_as_the_config_says_it_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# by hand\n" + load_or_make_config_text(path, ONE))
    assert (
        load_or_make_config_text(path, ONE)
        == load_or_make_config_text(path, Declaration())
        == path.read_text()
    )


# ---------------------------------------------------------------- editing a config

BASE = (
    "platform: pytorch_torchscript\nmax_batch_size: 8\n"
    "inputs: [{name: x, datatype: FP32, shape: [2]}]\n"
    "outputs: [{name: y, datatype: FP32, shape: [2]}]\n"
)


def test_an_entry_joins_those_that_are_there() -> None:
    text = text_with_entries(Path("c"), f"{BASE}sha256: {{'1': {SHA}}}\n", "sha256", {"2": SHA})
    assert config_of(text).sha256 == {"1": SHA, "2": SHA}
    text = text_with_entries(Path("c"), text, "labels", {"stable": 1})
    text = text_with_entries(Path("c"), text, "labels", {"stable": 2, "next": 2})
    assert config_of(text).labels == {"stable": 2, "next": 2}


def test_comments_and_order_stay() -> None:
    text = (
        f"# of the vision team\n{BASE}labels:\n  stable: 1  # since May\n# the end\ninstances: 2\n"
    )
    after = text_with_entries(Path("c"), text, "labels", {"next": 2})
    assert after.startswith("# of the vision team\n")
    assert after.endswith("# the end\ninstances: 2\n")


def test_an_entry_that_is_there_already_leaves_the_text_alone() -> None:
    text = f"{BASE}labels: {{stable: 1}} # so it is\n"
    assert text_with_entries(Path("c"), text, "labels", {"stable": 1}) == text
    assert text_with_entries(Path("c"), text, "labels", {}) == text


@pytest.mark.parametrize(
    "text",
    [
        "{" + BASE.replace("\n", ", ").rstrip(", ") + "}\n",
        BASE + f"sha256: &all {{'1': {SHA}}}\n...\n",
    ],
    ids=["all in one line", "a document's end"],
)
def test_a_text_that_no_machine_can_edit_is_refused_and_not_spoilt(text: str) -> None:
    assert config_of(text)
    with pytest.raises(StartError, match=r"^c: 'labels' can't be edited as it is written"):
        text_with_entries(Path("c"), text, "labels", {"stable": 1})


def test_an_alias_is_not_mistaken_for_what_it_stands_for() -> None:
    text = f"{BASE}sha256: &a {{'1': {SHA}}}\nlabels: {{stable: 1}}\n".replace(
        "max_batch_size: 8", "max_batch_size: &rows 8"
    ).replace("stable: 1", "stable: *rows")
    after = text_with_entries(Path("c"), text, "labels", {"next": 2})
    assert config_of(after).labels == {"stable": 8, "next": 2}


entries = st.dictionaries(
    st.integers(1, 99).map(str), st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1
)


@given(
    entries,
    entries,
    st.sampled_from(["sha256", "labels"]),
    st.sampled_from([True, False, None]),
    st.lists(st.sampled_from(["a: 1", "# note", "b: {c: [1]}"]), unique=True),
    st.lists(st.sampled_from(["d: x", "# end", "e:\n- 1\n- 2"]), unique=True),
)
def test_new_entries_replace_the_old_and_touch_nothing_else(
    old: dict[str, str],
    new: dict[str, str],
    key: str,
    flow: bool | None,
    before: list[str],
    after: list[str],
) -> None:
    middle = yaml.safe_dump({key: old}, default_flow_style=flow, width=10_000).strip()
    wrapped = middle.removeprefix("{").removesuffix("}") if flow else middle
    text = "\n".join([*before, wrapped, *after, ""])
    changed = text_with_entry(text, key, new)
    assert yaml.safe_load(changed) == {**yaml.safe_load(text), key: new}
    assert all(line in changed for line in (*before, *after))
