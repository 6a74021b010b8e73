import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from coalmine.errors import StartError
from coalmine.inference import inference_pb2 as pb
from coalmine_server.provenance import BYTES_MAX, OWN, dump, load_properties, metadata_of


def put(folder: Path, data: bytes) -> Path:
    (folder / "provenance.json").write_bytes(data)
    return folder


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.text(max_size=50), max_size=20))
def test_what_is_written_is_what_is_read_and_can_be_sent(
    tmp_path_factory: pytest.TempPathFactory, properties: dict[str, str]
) -> None:
    folder = put(tmp_path_factory.mktemp("version"), dump(properties))
    sent = pb.ModelMetadataResponse(properties=load_properties(folder))
    assert dict(sent.properties) == properties


def test_a_version_without_the_file_says_nothing_and_logs_nothing(tmp_path: Path) -> None:
    with capture_logs() as logs:
        assert load_properties(tmp_path) == {}
    assert logs == []


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe", "can't decode byte"),
        (b"[]", "expected an object whose values are texts"),
        (b'{"a": 1}', "expected an object whose values are texts"),
        (b'{"a": {"b": "c"}}', "expected an object whose values are texts"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"\\ud800": "a"}', "surrogates not allowed"),
        (b"[" * 60_000, "maximum recursion depth"),
        (b'{"a": "' + b"b" * BYTES_MAX + b'"}', f"over {BYTES_MAX} bytes"),
    ],
)
def test_a_broken_file_is_logged_and_says_nothing(tmp_path: Path, data: bytes, reason: str) -> None:
    with capture_logs() as logs:
        assert load_properties(put(tmp_path, data)) == {}
    [line] = logs
    assert line["event"] == "provenance_unreadable"
    assert line["path"] == str(tmp_path / "provenance.json")
    assert reason in line["reason"]


def test_a_pipe_or_folder_in_its_place_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    os.mkfifo(tmp_path / "a" / "provenance.json")
    (tmp_path / "b" / "provenance.json").mkdir(parents=True)
    with capture_logs() as logs:
        assert load_properties(tmp_path / "a") == load_properties(tmp_path / "b") == {}
    assert [each["event"] for each in logs] == ["provenance_unreadable"] * 2


def test_more_than_would_be_read_is_not_written() -> None:
    with pytest.raises(StartError, match=f"at most {BYTES_MAX} are read"):
        dump({"a": "b" * BYTES_MAX})


def test_metadata_is_a_key_and_whatever_stands_behind_the_first_equals_sign() -> None:
    assert metadata_of(["run=17", "query=a=b", "note=", "owner=Vision team, Zürich"]) == {
        "run": "17",
        "query": "a=b",
        "note": "",
        "owner": "Vision team, Zürich",
    }


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["run"], "metadata 'run': expected KEY=VALUE"),
        (["=17"], "expected KEY=VALUE"),
        (["a b=1"], "expected KEY=VALUE"),
        ([f"{'k' * 65}=1"], "expected KEY=VALUE"),
        (["run=1", "run=2"], "metadata 'run': is there twice"),
        (["git_commit=abc"], "metadata 'git_commit': is written by coalmine itself"),
        (["a=\x1b[31mred"], "metadata 'a': expected at most 1024 printable characters"),
        (["a=one\ntwo"], "printable"),
        ([f"a={'b' * 1025}"], "at most 1024"),
        ([f"k{i}=v" for i in range(33)], "metadata: expected at most 32 entries, got 33"),
    ],
)
def test_other_metadata_is_refused_in_one_line(texts: list[str], why: str) -> None:
    with pytest.raises(StartError) as refused:
        metadata_of(texts)
    assert why in str(refused.value)


def test_the_most_metadata_that_is_taken_fits_into_the_file() -> None:
    texts = [f"{'k' * 60}{i}={'v' * 1024}" for i in range(32)]
    own = dict.fromkeys(OWN, "x" * 256)
    assert json.loads(dump({**own, **metadata_of(texts)}))
