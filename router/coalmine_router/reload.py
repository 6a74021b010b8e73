"""What SIGHUP asks of `router run`: its file is read again, and every proxy is replaced."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from coalmine.errors import StartError, reason_of
from coalmine.process.child_process import Command
from coalmine.process.text_file import content_of
from coalmine_router.config.file import RouterConfig, parse_config
from coalmine_router.files import check_files
from coalmine_router.state.state_folder import open_state

_log = structlog.get_logger(__name__)

# How often the router checks that the copy is still there.
_CHECK_S: Final = 2.0


class Reload:
    """The configuration in force, and how another one takes its place.

    What the control process runs by is `in_force`, a copy: should it die while somebody edits the
    file, it comes back with what was last found good. `succeed_control` returns whether another
    one took over. `proxies` says how a configuration starts the proxies, or raises StartError where
    it can't; `roll` replaces them by such.
    """

    def __init__(
        self,
        file: Path,
        text: str,
        config: RouterConfig,
        *,
        in_force: Path,
        succeed_control: Callable[[], Awaitable[bool]],
        proxies: Callable[[RouterConfig], Sequence[Command]],
        roll: Callable[[Sequence[Command]], Awaitable[object]],
    ) -> None:
        self._file = file
        self._text = text
        self._config = config
        self._in_force = in_force
        self._was_copied = False
        self._succeed_control = succeed_control
        self._proxies = proxies
        self._roll = roll

    def write_copy(self) -> bool:
        """Write the copy; return whether that was possible."""
        try:
            self._replace_copy(self._text)
        except OSError as error:
            _log.error("config_not_copied", file=str(self._in_force), reason=reason_of(error))
            return False
        return True

    async def run(self, asked: asyncio.Event) -> None:
        """Reload whenever that is asked for, until cancelled; asked for meanwhile, once more.

        A copy that somebody deleted is written again: the control process couldn't come back.
        """
        while True:
            try:
                async with asyncio.timeout(_CHECK_S):
                    await asked.wait()
            except TimeoutError:
                self._restore_copy()
            else:
                asked.clear()
                await self.reload_once()

    def _restore_copy(self) -> None:
        """Write the copy where it was and is no more; a disk that takes none is tried later."""
        if self._was_copied and not self._in_force.exists():
            with contextlib.suppress(OSError):
                self._replace_copy(self._text)
                _log.warning("config_copied_again", file=str(self._in_force))

    async def reload_once(self) -> None:
        """Read the file, take up what it says, and replace the proxies.

        A wrong file changes nothing, and is one line in the log.
        """
        _log.info("reload_asked", file=str(self._file))
        try:
            text = content_of(self._file)
            wanted = parse_config(text, path=self._file)
            check_files(wanted)
            config = config_at_places_of(self._config, wanted)
            proxies = self._proxies(config)
        except StartError as error:
            _log_refusal(str(error))
            return
        for key, (kept, asked) in moved_places(self._config, wanted).items():
            _log.warning("needs_a_restart", key=key, kept=kept, wanted=asked)
        if await self._take_over(text, config):
            await self._roll(proxies)

    async def _take_over(self, text: str, config: RouterConfig) -> bool:
        """Return whether `config` is in force now."""
        if config == self._config:
            if not self._in_force.exists():  # whoever tidied up took the control process's with it
                self.write_copy()
            return True
        try:
            self._replace_copy(text)
        except OSError as error:
            _log_refusal(f"{self._in_force}: {reason_of(error)}")
            return False
        if not await self._succeed_control():
            _log_refusal(f"{self._file}: the control process did not start with it")
            self.write_copy()
            return False
        self._text, self._config = text, config
        _log.info("config_taken", file=str(self._file))
        return True

    def _replace_copy(self, text: str) -> None:
        draft = self._in_force.with_name(f"{self._in_force.name}.new")
        open_state(draft.parent)
        draft.write_text(text, encoding="utf-8")
        draft.replace(self._in_force)
        self._was_copied = True


def moved_places(before: RouterConfig, after: RouterConfig) -> Mapping[str, tuple[str, str]]:
    """Return what can't change while the router runs, by its key: as it is, and as is wanted."""
    was, wanted = _fixed_places(before), _fixed_places(after)
    return {key: (was[key], wanted[key]) for key in was if was[key] != wanted[key]}


def config_at_places_of(before: RouterConfig, after: RouterConfig) -> RouterConfig:
    """Return `after`, at the addresses and with the state folder of `before`."""
    places = {"listen": before.control.listen, "state": before.control.state}
    control = after.control.model_copy(update=places)
    fields = {"listen": before.listen, "http": before.http, "control": control}
    return after.model_copy(update=fields)


def _fixed_places(config: RouterConfig) -> dict[str, str]:
    return {
        "listen": config.listen,
        "control.listen": config.control.listen,
        "control.state": str(config.control.state),
        "http": config.http,
    }


def _log_refusal(reason: str) -> None:
    _log.error("config_refused", reason=reason, kept="what was in force before")
