"""`router check` beside a state folder: what the file says, and what is in force."""

import asyncio
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coalmine_router.cli import router
from coalmine_router.config.file import read_config
from coalmine_router.control.history_store import Store
from coalmine_router.control.route_history import Change, Split, definition_of
from tests.doubles.certificates import EARLY, EXPIRED, Authority, Times

TEXT = """
backends: {{blue: {{targets: ["127.0.0.1:1"]}}}}
control: {{state: {state}}}
routes:
  - name: digits
    match: {{model: digits}}
    variants: {{stable: {{backend: blue}}, canary: {{backend: blue}}}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text(TEXT.format(state=tmp_path / "own"))
    return path


def keep(folder: Path, file: Path, split: Split) -> None:
    folder.mkdir(exist_ok=True)

    async def kept() -> None:
        table = read_config(file).table()
        definition = definition_of(table, table.routes[0])
        change = Change(1, "digits", 0, "me", "", "weights", Split(), split, definition)
        store = await Store.open(folder)
        await store.append([change])
        await store.close()

    asyncio.run(kept())


def check(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(router, ["check", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_without_a_state_folder_the_file_is_all(file: Path) -> None:
    code, said, wrong = check(file)

    assert (code, wrong) == (0, "")
    assert "stable 100%, canary 0%" in said
    assert "in force" not in said


def test_the_weights_in_force_are_shown_beside_the_files(file: Path, tmp_path: Path) -> None:
    keep(tmp_path / "state", file, Split({"canary": 2500, "stable": 7500}, {"canary": 1000}))

    code, said, _ = check(file, "--state", tmp_path / "state")

    assert code == 0
    assert "in force: stable 75%, canary 25%, shadow canary 10%" in said


def test_the_files_own_state_is_read_where_it_is_there(file: Path, tmp_path: Path) -> None:
    keep(tmp_path / "own", file, Split({"canary": 0, "stable": 10000}, {}))

    assert "in force: the same" in check(file)[1]


def test_a_variant_that_is_gone_gives_its_share_to_stable(file: Path, tmp_path: Path) -> None:
    keep(tmp_path / "own", file, Split({"old": 5000, "stable": 5000}, {}))

    assert "in force: the same" in check(file)[1]


def test_a_named_folder_without_a_history_is_wrong(file: Path, tmp_path: Path) -> None:
    code, said, wrong = check(file, "--state", tmp_path / "nowhere")

    assert (code, said) == (2, "")
    assert wrong == f"coalmine: {tmp_path}/nowhere/control.db: no such file or directory\n"


def test_a_damaged_history_of_the_file_does_not_make_the_file_wrong(
    file: Path, tmp_path: Path
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "control.db").write_bytes(b"x" * 5000)

    code, said, wrong = check(file)

    assert code == 0
    assert "good" in said
    assert "not known" in wrong


def test_reading_changes_nothing_under_a_router_that_runs(file: Path, tmp_path: Path) -> None:
    async def shown() -> tuple[int, str, str]:
        store = await Store.open(tmp_path)
        try:
            return await asyncio.to_thread(check, file, "--state", tmp_path)
        finally:
            await store.close()

    assert asyncio.run(shown())[0] == 0


def test_a_certificate_that_has_expired_is_named_and_exits_1(file: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    pair = authority.pair("old", "old", times=EXPIRED)
    file.write_text(f"{file.read_text()}tls: {{cert: {pair.cert}, key: {pair.key}}}\n")

    code, said, wrong = check(file)

    assert (code, wrong) == (1, f"coalmine: {pair.cert}: expired on {EXPIRED.ends:%Y-%m-%d}\n")
    assert "good: 1 backends" in said


def test_a_backends_certificate_that_is_not_valid_yet_is_named(file: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "certificates")
    pair = authority.pair("early", "early", times=EARLY)
    tls = f"tls: {{ca: {authority.ca}, cert: {pair.cert}, key: {pair.key}}}"
    file.write_text(file.read_text().replace('1"]}', f'1"], {tls}}}'))

    code, _, wrong = check(file)

    assert code == 1
    assert f"coalmine: {pair.cert}: not valid before {EARLY.begins:%Y-%m-%d}\n" in wrong


@pytest.mark.parametrize(
    ("hours", "left"), [(23.0, "a day"), (47.0, "2 days"), (335.0, "14 days"), (337.0, "")]
)
def test_a_certificate_that_ends_soon_is_named_and_exits_0(
    hours: float, left: str, file: Path, tmp_path: Path
) -> None:
    times = Times(-1.0, hours)
    pair = Authority(tmp_path / "certificates").pair("soon", "soon", times=times)
    file.write_text(f"{file.read_text()}tls: {{cert: {pair.cert}, key: {pair.key}}}\n")

    code, _, said = check(file)

    named = f"coalmine: {pair.cert}: ends in less than {left}, on {times.ends:%Y-%m-%d}\n"
    assert (code, said) == (0, named if left else "")
