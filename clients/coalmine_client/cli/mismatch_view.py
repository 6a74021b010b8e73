"""How kept mismatches look to the operator. Pure: from the messages to what rich prints."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine.tensors import Tensor
from coalmine_client.cli.console import BAD, FAINT, STRONG, add, line, moment, stacked, table
from coalmine_client.cli.kept import Array, Body, Kept, distances, element_text

# More than these of one tensor nobody reads; the furthest apart are shown.
_ELEMENTS_SHOWN: Final = 40


def mismatches_view(found: pb.ListMismatchesResponse) -> RenderableType:
    """Return a row for each mismatch."""
    if not found.mismatches:
        return line("no mismatches kept")
    rows = table("=id", "=when", "candidate", "against", "differs", "=trace id")
    for each in found.mismatches:
        add(
            rows,
            (each.id, STRONG),
            moment(each.at_ns),
            each.candidate,
            each.reference,
            "; ".join(_briefly(difference) for difference in each.differences),
            each.trace_id.hex(),
        )
    return rows


def _briefly(of: pb.Difference) -> str:
    if of.kind == "value":
        return f"{of.output} by {of.max_abs_diff:.3g}"
    return f"{of.output}: {of.kind}" if of.output else of.kind


def mismatch_view(of: pb.Mismatch, kept: Kept) -> RenderableType:
    """Return the mismatch's head, then each differing output with its tensors side by side."""
    parts: list[RenderableType] = [_head(of, kept)]
    for difference in of.differences:
        parts += [line(), _difference(difference), *_sides(of, difference, kept)]
    return stacked(parts)


def _head(of: pb.Mismatch, kept: Kept) -> RenderableType:
    inputs = ", ".join(_described(each) for each in kept.request.tensors.values())
    facts = {
        "id": of.id,
        "when": moment(of.at_ns),
        "trace": of.trace_id.hex(),
        "request": inputs or _why_missing(of, kept.request),
    }
    return stacked(
        [
            line((f"{of.route}: {of.candidate} against {of.reference}", STRONG)),
            *(line((f"{name:<9}", FAINT), fact) for name, fact in facts.items()),
        ]
    )


def _difference(of: pb.Difference) -> RenderableType:
    """Return what differs, how much, and the worst of it."""
    facts = [of.kind]
    if of.elements:
        facts.append(f"{of.differing:,} of {of.elements:,} elements differ")
    if of.max_abs_diff:
        facts.append(f"max |diff| {of.max_abs_diff:.6g}")
    where = f"worst at {list(of.index)}: " if of.index else ""
    worst = f"{where}expected {of.expected or 'nothing'}, got {of.actual or 'nothing'}"
    return stacked(
        [line((of.output or "answer", STRONG), "   ", (" · ".join(facts), BAD)), line("  ", worst)]
    )


# ---------------------------------------------------------------- tensors


def _sides(of: pb.Mismatch, difference: pb.Difference, kept: Kept) -> Iterator[RenderableType]:
    """Yield the two tensors side by side, or where that can't be, what each of them is."""
    reference = kept.reference.tensors.get(difference.output)
    candidate = kept.candidate.tensors.get(difference.output)
    if reference and candidate and reference.array.shape == candidate.array.shape:
        yield from _side_by_side(of, difference, reference, candidate)
        return
    sides = ((of.reference, kept.reference, reference), (of.candidate, kept.candidate, candidate))
    for name, body, tensor in sides:
        what = _beginning(tensor) if tensor else _why_missing(of, body)
        yield line("  ", (f"{name}: ", FAINT), what)


def _side_by_side(
    of: pb.Mismatch, difference: pb.Difference, reference: Tensor, candidate: Tensor
) -> Iterator[RenderableType]:
    apart = distances(reference.array, candidate.array)
    marked = _furthest(apart, difference.differing)
    shown = sorted(_furthest(apart, _ELEMENTS_SHOWN)) if apart.size > _ELEMENTS_SHOWN else None
    rows = table("", "index", f">{of.reference}", f">{of.candidate}", ">|diff|")
    for at in range(apart.size) if shown is None else shown:
        style = BAD if at in marked else ""
        texts = (
            "*" if at in marked else "",
            _index(at, reference.array),
            element_text(reference, at),
            element_text(candidate, at),
            _distance(apart[at]),
        )
        add(rows, *((text, style) for text in texts))
    yield rows
    if shown is not None:
        yield line((f"  the {len(shown)} furthest apart of {apart.size:,} elements", FAINT))
    if marked:
        # The rule that counted them lives in the router; which they were isn't kept.
        yield line((f"  * the furthest apart, {len(marked):,}: as many as the rule counted", FAINT))


def _furthest(apart: Array, count: int) -> set[int]:
    """Return the places of the `count` elements furthest apart, none of them equal."""
    order = np.argsort(-apart, kind="stable")[:count]
    return {int(at) for at in order if apart[at] > 0}


def _index(at: int, array: Array) -> str:
    return str([int(each) for each in np.unravel_index(at, array.shape)])


def _distance(apart: float) -> str:
    if apart == 0:
        return "0"
    return f"{apart:.3g}" if np.isfinite(apart) else "≠"


def _described(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.datatype} {list(tensor.array.shape)}"


def _beginning(tensor: Tensor) -> str:
    """Return what the tensor is, with its first elements."""
    first = [element_text(tensor, at) for at in range(min(tensor.array.size, 8))]
    more = ", …" if tensor.array.size > len(first) else ""
    return f"{_described(tensor)}: {', '.join(first)}{more}"


def _why_missing(of: pb.Mismatch, body: Body) -> str:
    if of.bodies_dropped:
        return "not kept, its body was over the limit"
    return f"can't be read: {body.unreadable}" if body.unreadable else "no such tensor"
