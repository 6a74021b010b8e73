import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import StartError
from coalmine_server.packager import Declared, Packaged, package, tensor_of, with_hashes
from coalmine_server.repository import Repository
from tests.doubles.server_parts import FakeProgram, FakeRuntime

DECLARED = Declared(["x:FP32:[2]"], ["x:FP32:[2]"], 8, None, None)
NOTHING = Declared([], [], None, None, None)


class Desk:
    """A repository and a source file; the runtime is a double."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "models"
        self.source = folder / "source.pt"
        self.runtime = FakeRuntime()

    def package(
        self, version: int = 1, declared: Declared = DECLARED, name: str = "m", data: bytes = b"a"
    ) -> Packaged:
        self.source.write_bytes(data)
        return package(
            self.source,
            repository=self.root,
            name=name,
            version=version,
            declared=declared,
            runtime=self.runtime,
        )

    def refusal(self, version: int = 1, declared: Declared = DECLARED, name: str = "m") -> str:
        before = self.content()
        with pytest.raises(StartError) as refused:
            self.package(version, declared, name)
        assert self.content() == before, "a refusal changes nothing"
        assert "\n" not in str(refused.value)
        return str(refused.value)

    def content(self) -> dict[str, bytes]:
        found = (each for each in self.root.rglob("*") if each.is_file())
        return {str(each.relative_to(self.root)): each.read_bytes() for each in found}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def test_a_new_model_gets_a_folder_that_the_repository_reads(desk: Desk) -> None:
    done = desk.package(3, Declared(["x:FP32:[2,-1]"], ["x:FP32:[2,-1]"], 8, "2ms", 2))
    (model,) = Repository(desk.root).models()
    assert done.path == desk.root / "m" / "3" / "model.pt"
    assert done.sha256 == hashlib.sha256(b"a").hexdigest()
    assert model.versions[0].read() == b"a"
    assert model.config.inputs[0].shape == (2, -1)
    assert (model.config.batching.max_delay, model.config.instances) == (2_000_000, 2)
    assert set(desk.content()) == {"m/config.yaml", "m/3/model.pt"}, "no scratch is left"


def test_the_file_runs_at_one_row_and_at_the_most_before_it_is_put(desk: Desk) -> None:
    desk.package()
    assert {shape[0] for shape in desk.runtime.programs[0].runs} == {1, 8}


def test_of_more_versions_than_are_wanted_the_newest_are_served(desk: Desk) -> None:
    desk.package(1, replace(DECLARED, latest=1), data=b"a")
    desk.package(2, NOTHING, data=b"b")
    [model] = Repository(desk.root).models()
    assert [each.read() for each in model.versions] == [b"b"]


def test_a_second_version_adds_its_hash_and_keeps_the_first(desk: Desk) -> None:
    desk.package(1, data=b"a")
    desk.package(2, NOTHING, data=b"b")
    config = yaml.safe_load((desk.root / "m" / "config.yaml").read_text())
    assert config["sha256"] == {
        "1": hashlib.sha256(b"a").hexdigest(),
        "2": hashlib.sha256(b"b").hexdigest(),
    }
    [model] = Repository(desk.root).models()
    assert sorted(each.read() for each in model.versions) == [b"a", b"b"]


def test_comments_in_a_config_outlive_a_new_version(desk: Desk) -> None:
    desk.package(1)
    path = desk.root / "m" / "config.yaml"
    path.write_text("# owned by the vision team\n" + path.read_text() + "instances: 1  # small\n")
    desk.package(2)
    assert path.read_text().startswith("# owned by the vision team\n")
    assert path.read_text().endswith("instances: 1  # small\n")


def test_a_version_is_never_overwritten(desk: Desk) -> None:
    desk.package(1)
    assert desk.refusal(1).endswith("/m/1: is there already; take a new number")


def test_a_signature_that_the_other_versions_do_not_have_is_refused(desk: Desk) -> None:
    desk.package(1)
    other = Declared(["x:FP64:[2]"], ["x:FP32:[2]"], 8, None, None)
    assert desk.refusal(2, other).endswith(
        "config.yaml: inputs: expected x:FP32:[2], got x:FP64:[2]"
    )
    bigger = Declared([], [], 16, None, None)
    assert desk.refusal(2, bigger).endswith("config.yaml: max_batch_size: expected 8, got 16")
    slower = Declared([], [], None, "2ms", None)
    assert "batching.max_delay: expected 0, got 2000000" in desk.refusal(2, slower)


def test_a_file_that_does_not_run_as_declared_is_refused(desk: Desk) -> None:
    desk.runtime = FakeRuntime(lambda: FakeProgram(fails=lambda _: True))
    assert "model 'm' version 1: failed on zeros, 'x' FP32 [1, 2]" in desk.refusal()


def test_a_new_model_needs_a_whole_declaration(desk: Desk) -> None:
    assert "needs --input and --output" in desk.refusal(1, NOTHING)
    unsized = Declared(["x:FP32:[2]"], ["x:FP32:[2]"], None, None, None)
    assert "needs --max-batch-size" in desk.refusal(1, unsized)


def test_a_declaration_is_checked_as_a_config_is(desk: Desk) -> None:
    text = Declared(["x:BYTES:[2]"], ["x:FP32:[2]"], 8, None, None)
    assert "inputs.0.datatype: a TorchScript model takes" in desk.refusal(1, text)


@pytest.mark.parametrize("name", ["..", "a/b", "../m", ".m", ""])
def test_a_name_that_leads_elsewhere_is_refused(desk: Desk, name: str) -> None:
    assert "is not a model's name" in desk.refusal(name=name)


def test_a_link_that_leads_elsewhere_is_refused(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    desk.root.mkdir()
    (desk.root / "m").symlink_to(tmp_path / "outside")
    assert "leads out of the repository" in desk.refusal()


@pytest.mark.parametrize("version", [0, -1])
def test_a_version_is_a_positive_number(desk: Desk, version: int) -> None:
    assert "expected a positive integer" in desk.refusal(version)


def test_a_missing_source_is_refused(desk: Desk) -> None:
    with pytest.raises(StartError, match=r"nowhere\.pt: no such file or directory"):
        package(
            Path("nowhere.pt"),
            repository=desk.root,
            name="m",
            version=1,
            declared=DECLARED,
            runtime=desk.runtime,
        )


def test_a_tensor_is_a_name_a_datatype_and_sizes() -> None:
    assert tensor_of("a.b:INT8:[-1, 2]") == {"name": "a.b", "datatype": "INT8", "shape": [-1, 2]}
    assert tensor_of("x:FP32:[]")["shape"] == []


@pytest.mark.parametrize("text", ["", "x", "x:FP32", "x:FP32:2", "x:FP32:[a]", ":FP32:[1]"])
def test_other_text_is_no_tensor(text: str) -> None:
    with pytest.raises(StartError, match="is not a tensor: expected NAME:DATATYPE:"):
        tensor_of(text)


hashes = st.dictionaries(
    st.integers(1, 99).map(str), st.text("0123456789abcdef", min_size=64, max_size=64), min_size=1
)


@given(
    hashes,
    hashes,
    st.sampled_from([True, False, None]),
    st.lists(st.sampled_from(["a: 1", "# note", "b: {c: [1]}"]), unique=True),
    st.lists(st.sampled_from(["d: x", "# end", "e:\n- 1\n- 2"]), unique=True),
)
def test_new_hashes_replace_the_old_and_touch_nothing_else(
    old: dict[str, str],
    new: dict[str, str],
    flow: bool | None,
    before: list[str],
    after: list[str],
) -> None:
    middle = yaml.safe_dump({"sha256": old}, default_flow_style=flow, width=10_000).strip()
    wrapped = middle.removeprefix("{").removesuffix("}") if flow else middle
    text = "\n".join([*before, wrapped, *after, ""])
    changed = with_hashes(text, new)
    assert yaml.safe_load(changed) == {**yaml.safe_load(text), "sha256": new}
    assert all(line in changed for line in (*before, *after))
