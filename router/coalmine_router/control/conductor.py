"""Carries out changes: checks, writes down, puts in force. One after the other."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from coalmine.clock import Clock
from coalmine.errors import NotReady, Overloaded, Unavailable
from coalmine_router.control.current import CurrentTable
from coalmine_router.control.plan import Plan, Wish, plan
from coalmine_router.control.readiness import AsksReadiness
from coalmine_router.control.route_history import Change
from coalmine_router.table import RouteTable

_log = structlog.get_logger(__name__)

WAITING_MAX: Final = 256


class Journal(Protocol):
    """Where changes are written down."""

    async def ensure_usable(self) -> None:
        """Return where changes can be written now. Raises Unavailable.

        The table in force may be another one afterwards.
        """
        ...

    async def append(self, changes: Sequence[Change]) -> None:
        """Return once all of them are safe. Raises Unavailable."""
        ...


@dataclass(frozen=True, slots=True)
class _Turn:
    wish: Wish
    # Variants that were found ready for it.
    ready: frozenset[str]
    # The table with the wish in it; None where more variants must be asked first.
    answer: asyncio.Future[RouteTable | None]


class Conductor:
    """Changes the table in force. Changes are committed by `run`, whoever asked for them.

    So a caller who hangs up in the middle of a commit can't part the table from the disk.
    """

    def __init__(
        self,
        current: CurrentTable,
        journal: Journal,
        check: AsksReadiness,
        clock: Clock,
        *,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._current = current
        self._journal = journal
        self._check = check
        self._clock = clock
        self._turns: asyncio.Queue[_Turn] = asyncio.Queue(maxsize=waiting_max)
        self._is_stopped = False
        self.turned_away = 0

    async def change(self, wish: Wish) -> RouteTable:
        """Return the table that has what was wished for, once it is on disk and in force.

        A table that has it already comes back as it is. Raises NotFound, InvalidRequest,
        StaleRevision; NotReady where a variant that gains can't answer; Overloaded, Unavailable.
        """
        ready: frozenset[str] = frozenset()
        while True:
            # Backends are asked before the turn: a dead one must not hold up anybody's abort.
            unknown = plan(self._current.table, wish).gaining - ready
            await self._ask_and_require_ready(wish.route, unknown)
            ready |= unknown
            table = await self._queue_and_wait(wish, ready)
            if table is not None:
                return table

    async def run(self) -> None:
        """Commit changes, in the order they come, until cancelled."""
        try:
            while True:
                await self._run_turn(await self._turns.get())
        finally:
            self._is_stopped = True
            while not self._turns.empty():
                _fail_turn(self._turns.get_nowait(), _stopping_error())

    async def _ask_and_require_ready(self, route: str, variants: frozenset[str]) -> None:
        table = self._current.table
        for variant in sorted(variants):
            found = await self._check.ask(table, route, variant, patient=True)
            if not found.ready:
                raise NotReady(f"route '{route}': variant '{variant}' is not ready: {found.reason}")

    async def _queue_and_wait(self, wish: Wish, ready: frozenset[str]) -> RouteTable | None:
        if self._is_stopped:
            raise _stopping_error()
        turn = _Turn(wish, ready, asyncio.get_running_loop().create_future())
        try:
            self._turns.put_nowait(turn)
        except asyncio.QueueFull:
            self.turned_away += 1
            raise Overloaded(
                f"{self._turns.maxsize} changes are waiting, the most allowed"
            ) from None
        return await turn.answer

    async def _run_turn(self, turn: _Turn) -> None:
        if turn.answer.done():  # the caller is gone, nothing has been done yet
            return
        try:
            table = await self._commit(turn)
        except asyncio.CancelledError:
            _fail_turn(turn, _stopping_error("; the history tells whether the change was made"))
            raise
        except Exception as error:  # noqa: BLE001 - it is the caller's, and must not end the loop
            _fail_turn(turn, error)
        else:
            if not turn.answer.done():
                turn.answer.set_result(table)

    async def _commit(self, turn: _Turn) -> RouteTable | None:
        await self._journal.ensure_usable()
        made = plan(self._current.table, turn.wish)
        if made.gaining - turn.ready:
            return None
        if not made.is_unchanged:
            await self._journal.append([made.change(self._clock.wall_ns())])
            self._current.swap(made.after)
            _log_change(made)
        return made.after


def _fail_turn(turn: _Turn, error: Exception) -> None:
    if not turn.answer.done():
        turn.answer.set_exception(error)


def _stopping_error(more: str = "") -> Unavailable:
    return Unavailable(f"the router's control process is stopping{more}")


def _log_change(made: Plan) -> None:
    wish = made.wish
    _log.info(
        "changed",
        route=wish.route,
        revision=made.after.revision,
        action=wish.edit.action,
        actor=wish.actor,
        reason=wish.reason,
    )
