"""How kept mismatches look to the operator. Pure: from the messages to what rich prints."""

from collections.abc import Iterator
from typing import Final

import numpy as np
from rich.console import RenderableType

from coalmine.control.v1 import control_pb2 as pb
from coalmine.tensors import Tensor
from coalmine_client.cli.console import BAD, FAINT, STRONG, add_row, group, line, moment, table
from coalmine_client.cli.mismatch_bodies import (
    Array,
    Body,
    MismatchBodies,
    distances,
    element_text,
    why_no_request,
    why_not_kept,
)

# More than these of one tensor nobody reads; the furthest apart are shown.
_ELEMENTS_SHOWN: Final = 40


def mismatches_view(found: pb.ListMismatchesResponse) -> RenderableType:
    """Return a row for each mismatch."""
    if not found.mismatches:
        return line("no mismatches kept")
    rows = table("=id", "=when", "candidate", "against", "by", "differs", ">rows", "=trace id")
    for each in found.mismatches:
        add_row(
            rows,
            (each.id, STRONG),
            moment(each.at_ns),
            each.candidate,
            each.reference,
            each.role or "-",
            "; ".join(_difference_text(difference) for difference in each.differences),
            _count_of_whole(each.rows_mismatch, each.rows) or "-",
            each.trace_id.hex(),
        )
    return rows


def _difference_text(of: pb.Difference) -> str:
    if of.HasField("badness") and of.HasField("score"):
        return f"{of.output}: {of.rule} {of.score:.3g}"
    if of.kind == "value" and of.max_abs_diff:
        return f"{of.output} by {of.max_abs_diff:.3g}"
    return f"{of.output}: {of.kind}" if of.output else of.kind


def _count_of_whole(part: int, whole: int) -> str:
    return f"{part:,} of {whole:,}" if whole else ""


def mismatch_view(of: pb.Mismatch, kept: MismatchBodies) -> RenderableType:
    """Return the head, the request's values, and those of each differing output side by side."""
    parts: list[RenderableType] = [_mismatch_head(of, kept), *_input_lines(kept.request)]
    for difference in of.differences:
        parts += [line(), _difference_view(of, difference), *_tensor_lines(of, difference, kept)]
    return group(parts)


def _mismatch_head(of: pb.Mismatch, kept: MismatchBodies) -> RenderableType:
    facts = {
        "id": of.id,
        "when": moment(of.at_ns),
        "trace": of.trace_id.hex(),
        "by": f"{of.role}, trial {of.trial}" if of.trial else of.role,
        "versions": _versions_text(of),
        "address": _addresses_text(of),
        "rows": f"{_count_of_whole(of.rows_mismatch, of.rows)} differ" if of.rows else "",
        "segment": of.segment,
        "caller's": of.request_id,
        "note": of.note,
        "request": _inputs_text(of, kept.request),
        "not kept": "; ".join(_reasons_not_kept(of)),
    }
    return group(
        [
            line((f"{of.route}: {of.candidate} against {of.reference}", STRONG)),
            *(line((f"{name:<9}", FAINT), fact) for name, fact in facts.items() if fact),
        ]
    )


def _versions_text(of: pb.Mismatch) -> str:
    versions = ((of.reference, of.reference_version), (of.candidate, of.candidate_version))
    return ", ".join(f"{name} {version}" for name, version in versions if version)


def _addresses_text(of: pb.Mismatch) -> str:
    addresses = ((of.reference, of.reference_address), (of.candidate, of.candidate_address))
    return ", ".join(f"{name} {address}" for name, address in addresses if address)


def _inputs_text(of: pb.Mismatch, request: Body) -> str:
    """Return the request's inputs, also those whose values aren't kept."""
    shapes = [each for each in of.shapes if each.side == "request"]
    if shapes:
        return ", ".join(_shape_text(each) for each in shapes)
    described = ", ".join(_tensor_type(each) for each in request.tensors.values())
    return described or _why_missing(of, request)


def _input_lines(request: Body) -> Iterator[RenderableType]:
    """Yield the values of each input."""
    if request.tensors:
        yield line()
    for each in request.tensors.values():
        yield line("  ", (f"{each.name}: ", FAINT), _first_values(each, _ELEMENTS_SHOWN))


def _reasons_not_kept(of: pb.Mismatch) -> Iterator[str]:
    if reason := why_not_kept(of):
        yield reason
    if reason := why_no_request(of):
        yield f"the request: {reason}"
    elif of.inputs_dropped:
        yield f"inputs that the route drops: {', '.join(of.inputs_dropped)}"


def _difference_view(of: pb.Mismatch, difference: pb.Difference) -> RenderableType:
    """Return what differs, how much, and the worst of it."""
    title = (difference.output or "answer", STRONG)
    facts = " · ".join(_difference_facts(difference))
    return group([line(title, "   ", (facts, BAD)), line("  ", _worst_text(of, difference))])


def _difference_facts(of: pb.Difference) -> Iterator[str]:
    yield f"{of.kind} by rule {of.rule}" if of.rule else of.kind
    if of.rows > 1:
        yield f"{_count_of_whole(of.rows_mismatch, of.rows)} rows"
    if of.elements:
        yield f"{of.differing:,} of {of.elements:,} elements differ"
    if of.max_abs_diff:
        yield f"max |diff| {of.max_abs_diff:.6g}"
    if of.HasField("score"):
        yield f"score {of.score:.6g}"


def _worst_text(of: pb.Mismatch, difference: pb.Difference) -> str:
    where = f"worst at {list(difference.index)}" if difference.index else ""
    if not difference.expected and not difference.actual and why_not_kept(of):
        return f"{where}: values are not kept" if where else "what was expected is not kept"
    expected, actual = difference.expected or "nothing", difference.actual or "nothing"
    return f"{where}{': ' if where else ''}expected {expected}, got {actual}"


# ---------------------------------------------------------------- tensors


def _tensor_lines(
    of: pb.Mismatch, difference: pb.Difference, kept: MismatchBodies
) -> Iterator[RenderableType]:
    """Yield the two tensors side by side, or where that can't be, what each of them is."""
    reference = kept.reference.tensors.get(difference.output)
    candidate = kept.candidate.tensors.get(difference.output)
    if reference and candidate and reference.array.shape == candidate.array.shape:
        yield from _rows_side_by_side(of, difference, reference, candidate)
        return
    sides = ((of.reference, kept.reference, reference), (of.candidate, kept.candidate, candidate))
    for side, (name, body, tensor) in zip(("reference", "candidate"), sides, strict=True):
        what = _beginning_text(tensor) if tensor else _shape_or_reason(of, side, difference, body)
        yield line("  ", (f"{name}: ", FAINT), what)


def _shape_or_reason(of: pb.Mismatch, side: str, difference: pb.Difference, body: Body) -> str:
    """Return the shape of what isn't kept, or why there is none."""
    for each in of.shapes:
        if (each.side, each.name) == (side, difference.output) and not body.tensors:
            return f"{_shape_text(each)}, {_why_missing(of, body)}"
    return _why_missing(of, body)


def _shape_text(of: pb.TensorShape) -> str:
    return f"{of.name} {of.datatype} {list(of.shape)}"


def _rows_side_by_side(
    of: pb.Mismatch, difference: pb.Difference, reference: Tensor, candidate: Tensor
) -> Iterator[RenderableType]:
    apart = distances(reference.array, candidate.array)
    marked = _furthest_at(apart, difference.differing)
    shown = sorted(_furthest_at(apart, _ELEMENTS_SHOWN)) if apart.size > _ELEMENTS_SHOWN else None
    rows = table("", "index", f">{of.reference}", f">{of.candidate}", ">|diff|")
    for at in range(apart.size) if shown is None else shown:
        style = BAD if at in marked else ""
        texts = (
            "*" if at in marked else "",
            _index_text(at, reference.array),
            element_text(reference, at),
            element_text(candidate, at),
            _distance_text(apart[at]),
        )
        add_row(rows, *((text, style) for text in texts))
    yield rows
    if shown is not None:
        yield line((f"  the {len(shown)} furthest apart of {apart.size:,} elements", FAINT))
    if marked:
        # The rule that counted them lives in the router; which they were isn't kept.
        yield line((f"  * the furthest apart, {len(marked):,}: as many as the rule counted", FAINT))


def _furthest_at(apart: Array, count: int) -> set[int]:
    """Return the places of the `count` elements furthest apart, none of them equal."""
    order = np.argsort(-apart, kind="stable")[:count]
    return {int(at) for at in order if apart[at] > 0}


def _index_text(at: int, array: Array) -> str:
    return str([int(each) for each in np.unravel_index(at, array.shape)])


def _distance_text(apart: float) -> str:
    if apart == 0:
        return "0"
    return f"{apart:.3g}" if np.isfinite(apart) else "≠"


def _tensor_type(tensor: Tensor) -> str:
    return f"{tensor.name} {tensor.datatype} {list(tensor.array.shape)}"


def _beginning_text(tensor: Tensor) -> str:
    """Return what the tensor is, with its first elements."""
    return f"{_tensor_type(tensor)}: {_first_values(tensor, 8)}"


def _first_values(tensor: Tensor, most: int) -> str:
    """Return the first elements in row-major order, and of how many where there are more."""
    size = tensor.array.size
    first = ", ".join(element_text(tensor, at) for at in range(min(size, most)))
    return f"{first}, … ({size:,} elements)" if size > most else first or "no elements"


def _why_missing(of: pb.Mismatch, body: Body) -> str:
    if why_not_kept(of):
        return "not kept"
    return f"can't be read: {body.unreadable}" if body.unreadable else "no such tensor"
