"""The route table in force, and word of each new one."""

from coalmine_router.change_signal import ChangeSignal
from coalmine_router.table import RouteTable


class CurrentTable:
    """Holds the newest table. Whoever follows it may miss some in between, never the last.

    A provisional one is the configuration file's, for want of the state: a proxy that has a table
    keeps it.
    """

    def __init__(self, table: RouteTable, *, is_provisional: bool = False) -> None:
        self._table = table
        self._changes = ChangeSignal()
        self.is_provisional = is_provisional

    @property
    def table(self) -> RouteTable:
        """The table in force."""
        return self._table

    def swap(self, table: RouteTable) -> None:
        """Put `table` in force and tell those who follow."""
        self._table, self.is_provisional = table, False
        self._changes.wake_all()

    async def wait_for_other(self, seen: RouteTable) -> RouteTable:
        """Return the table in force, once it is not `seen`."""
        while self._table is seen:
            await self._changes.wait()
        return self._table
