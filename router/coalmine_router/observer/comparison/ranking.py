"""Rules that judge by the order of the values along the last axis: argmax, top_k. Pure."""

from math import ceil

import numpy as np

from coalmine.tensors import Array
from coalmine_router.observer.comparison.nan import without_nan
from coalmine_router.observer.comparison.rule_result import (
    Floats,
    Mask,
    RuleResult,
    VectorJudgement,
    WorstTexts,
    as_float,
    as_text,
    is_half,
    result_by_vector,
)


@np.errstate(invalid="ignore", over="ignore")
def argmax(reference: Array, candidate: Array, *, margin: float = 0.0) -> RuleResult:
    """Return where `candidate` has another label on top than `reference`.

    Shapes: both (rows, …, labels), equal; each vector along the last axis has a label, the first of
    equal values. The candidate's label is a mismatch where the reference's value there lies more
    than `margin` below its top. So each of the labels that tie in the reference matches. Ties in
    the candidate are not excused. NaN on one side alone is a mismatch of kind nan; on both sides it
    is never on top. The score is by how much the reference prefers its own label. Raises
    ShapeMismatch.
    """

    def judge(r: Array, c: Array) -> VectorJudgement | None:
        r, c, apart, _ = without_nan(_wide_if_half(r), _wide_if_half(c), fill=-np.inf)
        own, other = r.argmax(axis=-1), c.argmax(axis=-1)
        if apart is None and np.array_equal(own, other):
            return None
        gap = _preference_gap(r, own, other)
        return _judgement(gap > margin, gap, gap, apart)

    return result_by_vector(reference, candidate, judge, _top_label_texts, "label")


@np.errstate(invalid="ignore", over="ignore")
def top_k(
    reference: Array,
    candidate: Array,
    *,
    k: int,
    min_overlap: float = 1.0,
    min_tau: float | None = None,
) -> RuleResult:
    """Return where the k best labels of `candidate` are others than those of `reference`.

    Shapes: both (rows, …, labels), equal, and more labels than k. A vector is a mismatch where
    fewer than min_overlap·k of the candidate's k best are among the reference's; labels that tie
    for the reference's last place are all among them, the candidate's ties go to the first labels.
    With `min_tau`, also where Kendall's tau over the labels in common is below it: pairs that tie
    in the reference count as in order, pairs that tie in the candidate alone as neither; one label
    in common is in order. NaN as with argmax. The score is the overlap as a share, or the tau that
    is too low. Raises ShapeMismatch.
    """
    needed = ceil(min_overlap * k - 1e-9)

    def judge(r: Array, c: Array) -> VectorJudgement | None:
        r, c, apart, _ = without_nan(_wide_if_half(r), _wide_if_half(c), fill=-np.inf)
        among, best = r >= _kth_best(r, k), _k_best(c, k)
        overlap = np.count_nonzero(among & best, axis=-1)
        too_few = overlap < needed
        if min_tau is None:
            share = overlap / k
            return _judgement(too_few, 1.0 - share, share, apart)
        tau = _kendall_tau(r, c, among, best)
        # Other labels are worse than the same labels in another order.
        badness = np.where(too_few, 3.0 - overlap / k, 1.0 - tau)
        score = np.where(too_few, overlap / k, tau)
        return _judgement(too_few | (tau < min_tau - 1e-9), badness, score, apart)

    return result_by_vector(reference, candidate, judge, _best_labels_texts(k), "label")


def _wide_if_half(values: Array) -> Array:
    return as_float(values) if is_half(values) else values


def _judgement(differ: Mask, badness: Floats, score: Floats, apart: Mask | None) -> VectorJudgement:
    return VectorJudgement(differ if apart is None else differ | apart, badness, score, apart)


# ---------------------------------------------------------------- labels


def _preference_gap(values: Array, own: Array, other: Array) -> Floats:
    """Return by how much each vector prefers one of its labels to another; 0 where they are one."""
    vectors = np.arange(len(values))
    top, there = values[vectors, own], values[vectors, other]
    # Integers are subtracted as floats: as they are, they would overflow.
    return np.where(top == there, 0.0, as_float(top) - as_float(there))


def _kth_best(values: Array, k: int) -> Array:
    place = values.shape[-1] - k
    return np.asarray(np.partition(values, place, axis=-1)[:, place : place + 1])


def _k_best(values: Array, k: int) -> Mask:
    """Return the k best of each vector; the first of those that tie for the last place."""
    last = _kth_best(values, k)
    best = np.asarray(values >= last)
    if (np.count_nonzero(best, axis=-1) == k).all():
        return best
    above = values > last
    free = k - np.count_nonzero(above, axis=-1, keepdims=True)
    ties = values == last
    return np.asarray(above | (ties & (np.cumsum(ties, axis=-1) <= free)))


def _kendall_tau(r: Array, c: Array, among: Mask, best: Mask) -> Floats:
    """Return Kendall's tau over the labels in common. Shapes: (vectors, labels); (vectors,)."""
    labels = np.nonzero(best)[1].reshape(len(best), -1)
    first, second = np.triu_indices(labels.shape[1], 1)
    ours, theirs = (np.take_along_axis(each, labels, axis=-1) for each in (r, c))
    common = np.take_along_axis(among, labels, axis=-1)
    pairs = common[:, first] & common[:, second]
    order_r = _pair_order(ours, first, second)
    order_c = _pair_order(theirs, first, second)
    agreed = np.where(order_r == 0, 1, order_r * order_c)
    count = pairs.sum(axis=-1)
    return np.where(count == 0, 1.0, (agreed * pairs).sum(axis=-1) / np.maximum(count, 1))


def _pair_order(values: Array, first: Array, second: Array) -> Array:
    left, right = values[:, first], values[:, second]
    return (left > right).astype(np.int8) - (left < right).astype(np.int8)


# ---------------------------------------------------------------- as text


def _top_label_texts(r: Array, c: Array, _: float) -> tuple[str, str]:
    return _top_label_text(r), _top_label_text(c)


def _top_label_text(values: Array) -> str:
    label = int(as_float(values).argmax()) if is_half(values) else int(values.argmax())
    return f"{label} ({as_text(values[label])})"


def _best_labels_texts(k: int) -> WorstTexts:
    def best_labels_text(values: Array) -> str:
        order = np.argsort(-as_float(values), kind="stable")[:k]
        return as_text(" ".join(str(int(each)) for each in order))

    return lambda r, c, _: (best_labels_text(r), best_labels_text(c))
