"""Where a router takes up again: the configured routes, with the splits that were saved. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from coalmine.shares import percent
from coalmine_router.control.route_history import LEFT, Change, Split, definition_of
from coalmine_router.table import STABLE, Route, RouteTable, Shadow

ACTOR: Final = "configuration"


@dataclass(frozen=True, slots=True)
class Resumed:
    """The table to begin with, and what must be written down before it is used."""

    table: RouteTable
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Served:
    """The table that is served before the history can be used.

    A provisional one is the file's, for want of a better one: it says nothing of what was changed.
    """

    table: RouteTable
    is_provisional: bool = False


def served_start(
    configured: RouteTable,
    newest: Mapping[str, Change],
    served: Served | None,
    now_ns: int,
    *,
    lost: str = "",
) -> Resumed:
    """Return where to begin, at a revision that is not below that of what is served already.

    What is served later than the history knows of is right, and is written down: the history has
    lost it. `lost` says how, where that is known. Raises InvalidRequest as `saved_start` does.
    """
    revision = max((change.revision for change in newest.values()), default=0)
    if served is None or (served.is_provisional and not newest):
        return saved_start(configured, newest, revision, now_ns, why=lost)
    base = max(revision, served.table.revision)
    if served.is_provisional:
        return saved_start(configured, newest, base, now_ns, why="the state can be used again")
    if base == revision:
        return saved_start(configured, newest, revision, now_ns)
    ended = f"the history ended at revision {revision}" if newest else "the history was lost"
    why = f"{lost or ended}; taken from the table that was served, revision {base}"
    return saved_start(configured, {**newest, **_entries_of(served.table)}, base, now_ns, why=why)


def is_redefined(configured: RouteTable, table: RouteTable) -> bool:
    """Return whether the configuration defines other routes than the table, whatever the split."""
    return _definitions(configured) != _definitions(table)


def _definitions(table: RouteTable) -> Mapping[str, str]:
    return {route.name: definition_of(table, route) for route in table.routes}


def _entries_of(table: RouteTable) -> Mapping[str, Change]:
    """Return what a table tells of each route's newest change: its split and its definition."""
    return {
        route.name: _entry(
            route.name, Split.of(route), Split.of(route), definition_of(table, route), ""
        )
        for route in table.routes
    }


def saved_start(
    configured: RouteTable,
    newest: Mapping[str, Change],
    revision: int,
    now_ns: int,
    *,
    why: str = "",
) -> Resumed:
    """Return where to begin: saved weights and shadows win over the configured ones.

    `newest` is each route's newest change, `revision` the highest ever given. A change is written,
    with a revision of its own, for each route that is new, gone, or defined otherwise than it was;
    where there is a `why`, for every route. Raises InvalidRequest where what is saved makes no
    valid route.
    """
    merged = [
        _merged_route(configured, route, newest.get(route.name), why) for route in configured.routes
    ]
    gone = [newest[name] for name in newest if name not in configured.by_route]
    entries = [each.entry for each in merged if each.entry.reason]
    entries += [_entry_of_gone(saved) for saved in gone if saved.definition != LEFT]
    changes = tuple(
        replace(entry, revision=revision + place, at_ns=now_ns)
        for place, entry in enumerate(entries, start=1)
    )
    routes = tuple(each.route for each in merged)
    table = replace(configured, revision=revision + len(changes), routes=routes)
    return Resumed(table, changes)


@dataclass(frozen=True, slots=True)
class _Merged:
    route: Route
    # Without a reason, nothing to write.
    entry: Change


def _merged_route(configured: RouteTable, route: Route, saved: Change | None, why: str) -> _Merged:
    definition = definition_of(configured, route)
    if saved is None:
        reason = _joined_reasons([why, "new route"])
        return _Merged(route, _entry(route.name, Split(), Split.of(route), definition, reason))
    kept = _with_split(route, saved.after)
    reason = _joined_reasons([why, *_changes_since_saved(route, saved, definition)])
    return _Merged(kept, _entry(route.name, saved.after, Split.of(kept), definition, reason))


def _joined_reasons(reasons: Iterable[str]) -> str:
    return "; ".join(filter(None, reasons))


def _with_split(route: Route, saved: Split) -> Route:
    """Return the route with the saved split; what belonged to a gone variant goes to stable."""
    if saved == Split.of(route):  # of most routes
        return route
    fresh = {name: 0 for name in route.by_name if name != STABLE}
    weights = {name: saved.weights_bp.get(name, 0) for name in fresh}
    shadows = tuple(
        Shadow(name, share) for name, share in saved.shadows_bp.items() if name in route.by_name
    )
    return replace(route.with_weights(weights), shadows=shadows)


def _changes_since_saved(route: Route, saved: Change, definition: str) -> list[str]:
    reasons = ["the route is back"] if saved.definition == LEFT else []
    reasons += [
        f"variant '{name}' is gone, its {percent(weight)} went to stable"
        for name, weight in saved.after.weights_bp.items()
        if weight and name not in route.by_name
    ]
    reasons += [
        f"shadow '{name}' is gone" for name in saved.after.shadows_bp if name not in route.by_name
    ]
    if not reasons and saved.definition != definition:
        return ["the route is defined otherwise than before"]
    return reasons


def _entry_of_gone(saved: Change) -> Change:
    # The split stays in the entry: should the route come back, it takes up there.
    return _entry(saved.route, saved.after, saved.after, LEFT, "the route is gone")


def _entry(route: str, before: Split, after: Split, definition: str, reason: str) -> Change:
    return Change(
        revision=0,
        route=route,
        at_ns=0,
        actor=ACTOR,
        reason=reason,
        action="configured",
        before=before,
        after=after,
        definition=definition,
    )
