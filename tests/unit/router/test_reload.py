"""What SIGHUP asks for: what is taken up, what is refused, and what stays."""

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from coalmine.errors import StartError
from coalmine.process.child_process import Command
from coalmine_router.config.file import RouterConfig, parse_config
from coalmine_router.reload import Reload, config_at_places_of, moved_places
from tests.doubles.waiting import eventually

FILE = """
listen: 127.0.0.1:9001
http: 127.0.0.1:9003
control: {listen: 127.0.0.1:9002, state: ./state}
backends: {blue: {targets: ["127.0.0.1:8001"]}}
routes:
  - name: digits
    match: {model: digits}
    variants: {stable: {backend: blue}}
"""
ANOTHER = FILE.replace("name: digits", "name: letters")


@dataclass
class Router:
    """Its files, and what was asked of it."""

    folder: Path
    starts: bool = True  # the control process that is to take over
    control_ran_by: list[str] = field(default_factory=list)
    rolled: list[Command] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file.write_text(FILE)
        self.reload = Reload(
            self.file,
            FILE,
            parse_config(FILE, path=self.file),
            in_force=self.in_force,
            succeed_control=self._succeed,
            proxies=self._proxies,
            roll=self._roll,
        )
        assert self.reload.write_copy()

    @property
    def file(self) -> Path:
        return self.folder / "router.yaml"

    @property
    def in_force(self) -> Path:
        return self.folder / "state" / "in-force.yaml"

    async def told(self, text: str) -> list[str]:
        """Write the file and reload; return the events in the log."""
        self.file.write_text(text)
        with capture_logs() as logs:
            await self.reload.reload_once()
        return [each["event"] for each in logs]

    async def _succeed(self) -> bool:
        self.control_ran_by.append(self.in_force.read_text())
        return self.starts

    def _proxies(self, config: RouterConfig) -> list[Command]:
        if config.routes[0].name == "impossible":
            raise StartError("no proxy can be started so")
        return [Command(config.routes[0].name, (config.listen,), ())]

    async def _roll(self, proxies: Sequence[Command]) -> None:
        self.rolled.append(proxies[0])


@pytest.fixture
def router(tmp_path: Path) -> Router:
    return Router(tmp_path)


async def test_the_same_file_rolls_the_proxies_and_leaves_control_alone(router: Router) -> None:
    await router.told(FILE + "# a comment\n")
    assert router.control_ran_by == []
    assert len(router.rolled) == 1


async def test_by_another_content_another_control_takes_over_then_proxies_roll(
    router: Router,
) -> None:
    assert "config_taken" in await router.told(ANOTHER)
    assert router.control_ran_by == [ANOTHER]
    assert [proxy.name for proxy in router.rolled] == ["letters"]


UNREADABLE = FILE + "tls: {cert: gone.pem, key: gone.pem}\n"
IMPOSSIBLE = FILE.replace("name: digits", "name: impossible")


@pytest.mark.parametrize(
    "wrong", ["routes: [", FILE + "nonsense: 1\n", "{}", IMPOSSIBLE, UNREADABLE]
)
async def test_a_wrong_file_is_one_line_and_changes_nothing(router: Router, wrong: str) -> None:
    assert await router.told(wrong) == ["reload_asked", "config_refused"]
    assert (router.control_ran_by, router.rolled) == ([], [])
    assert router.in_force.read_text() == FILE


async def test_a_file_that_is_gone_changes_nothing(router: Router) -> None:
    router.file.unlink()
    await router.reload.reload_once()
    assert (router.control_ran_by, router.rolled) == ([], [])


async def test_where_control_does_not_start_the_old_content_is_put_back(router: Router) -> None:
    router.starts = False
    assert await router.told(ANOTHER) == ["reload_asked", "config_refused"]
    assert router.rolled == []
    assert router.in_force.read_text() == FILE
    router.starts = True
    await router.told(ANOTHER)
    assert len(router.control_ran_by) == 2, "it wasn't taken, so it is news again"


async def test_a_copy_that_cannot_be_written_changes_nothing(router: Router) -> None:
    router.in_force.with_name("in-force.yaml.new").mkdir()
    assert await router.told(ANOTHER) == ["reload_asked", "config_refused"]
    assert (router.control_ran_by, router.rolled) == ([], [])


async def test_a_copy_that_somebody_deleted_with_its_folder_is_written_again(
    router: Router,
) -> None:
    shutil.rmtree(router.in_force.parent)

    assert "config_refused" not in await router.told(FILE)
    assert router.in_force.read_text() == FILE


async def test_without_being_asked_too_a_deleted_copy_is_written_again_for_this_user_alone(
    router: Router,
) -> None:
    shutil.rmtree(router.in_force.parent)
    running = asyncio.create_task(router.reload.run(asyncio.Event()))
    await eventually(router.in_force.exists)
    running.cancel()
    assert router.in_force.read_text() == FILE
    assert router.in_force.parent.stat().st_mode & 0o077 == 0


async def test_another_address_is_logged_and_the_rest_is_taken(router: Router) -> None:
    said = await router.told(ANOTHER.replace(":9001", ":9101").replace("./state", "./elsewhere"))
    assert said.count("needs_a_restart") == 2
    assert router.rolled == [Command("letters", ("127.0.0.1:9001",), ())]


async def test_another_address_alone_restarts_nobody(router: Router) -> None:
    await router.told(FILE.replace(":9003", ":9103"))
    assert router.control_ran_by == []


async def test_a_signal_during_a_reload_is_not_lost(router: Router) -> None:
    asked = asyncio.Event()

    class Slow(Router):
        async def _roll(self, proxies: Sequence[Command]) -> None:
            await super()._roll(proxies)
            if len(self.rolled) == 1:
                asked.set()
            else:
                raise EnoughError

    class EnoughError(Exception):
        pass

    slow = Slow(router.folder)
    asked.set()
    with pytest.raises(EnoughError):
        async with asyncio.timeout(10):
            await slow.reload.run(asked)
    assert len(slow.rolled) == 2


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("listen", ":9001", ":9101"),
        ("control.listen", ":9002", ":9102"),
        ("http", ":9003", ":9103"),
        ("control.state", "./state", "./other"),
    ],
)
def test_what_needs_a_restart_is_named_and_kept(key: str, before: str, after: str) -> None:
    path = Path("router.yaml")
    was = parse_config(FILE, path=path)
    wanted = parse_config(FILE.replace(before, after), path=path)
    assert list(moved_places(was, wanted)) == [key]
    assert config_at_places_of(was, wanted) == was
