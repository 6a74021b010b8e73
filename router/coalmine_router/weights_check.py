"""What a configuration will mean where a state folder has weights that win over the file's."""

import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

from coalmine.errors import CoalmineError, StartError, reason_of
from coalmine.shares import percent
from coalmine_router.control.history_store import newest_in
from coalmine_router.control.resume import saved_start
from coalmine_router.control.route_history import Change
from coalmine_router.control.state_file import FILE
from coalmine_router.table import Route, RouteTable

Saved = Mapping[str, Change]


def read_saved_splits(folder: Path) -> Saved:
    """Return each route's newest change in a state folder. Changes nothing there.

    Raises StartError where there is no history, or it can't be read.
    """
    path = folder / FILE
    try:
        path.stat()
        connection = sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro", uri=True)
        try:
            return {each.route: each for each in newest_in(connection)}
        finally:
            connection.close()
    except OSError as error:
        raise StartError(f"{path}: {reason_of(error)}") from None
    except (sqlite3.Error, ValueError) as error:
        raise StartError(f"{path}: can't be read: {error}") from None


def split_lines(configured: RouteTable, saved: Saved) -> Iterator[str]:
    """Yield a line for each route, and one more where what is in force is not what the file says.

    Raises StartError where what is saved makes no valid route.
    """
    try:
        in_force = saved_start(configured, saved, 0, 0).table.by_route
    except CoalmineError as error:
        raise StartError(f"the saved weights don't fit: {error}") from None
    for route in configured.routes:
        yield f"{route.name}: {route.match}: {_shares_text(route)}"
        if route.name not in saved:
            continue
        now = in_force[route.name]
        is_same = _split_of(now) == _split_of(route)
        yield f"{' ' * len(route.name)}  in force: {'the same' if is_same else _shares_text(now)}"


def _split_of(route: Route) -> tuple[dict[str, int], dict[str, int]]:
    shadows = {name: share for name, share in route.shadows_bp.items() if share}
    return dict(route.weights_bp), shadows


def _shares_text(route: Route) -> str:
    weights, shadows = _split_of(route)
    shares = [f"{name} {percent(weight)}" for name, weight in weights.items()]
    return ", ".join(shares + [f"shadow {name} {percent(each)}" for name, each in shadows.items()])
