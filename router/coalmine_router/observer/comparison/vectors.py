"""Rules that judge vectors along the last axis as a whole: cosine, distribution. Pure."""

from typing import Final, Literal

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
    result_by_vector,
)

Source = Literal["logits", "probabilities"]

# How far rounding alone moves a cosine, and the sum of probabilities of 16 bits.
_COSINE_SLACK: Final = 1e-12
_SUM_SLACK: Final = 0.01
_NEGATIVE_SLACK: Final = 1e-6
# Smaller squares lose some or all of their digits.
_TINY: Final = 1e-280


@np.errstate(invalid="ignore", over="ignore", divide="ignore")
def cosine(reference: Array, candidate: Array, *, least: float) -> RuleResult:
    """Return which vectors have a cosine similarity, the score, below `least`.

    Shapes: both (rows, …, length), equal; calculated in float64. Two zero vectors are alike (1), a
    zero vector and another are not (0). A vector with an infinity is like its equal only. NaN on
    one side alone is a mismatch of kind nan; elements that are NaN on both sides are left out.
    Raises ShapeMismatch.
    """

    def judge(r: Array, c: Array) -> VectorJudgement | None:
        r, c, apart, _ = without_nan(as_float(r), as_float(c), fill=0.0)
        score = _cosine(r, c)
        differ = ~(score >= least - _COSINE_SLACK)
        if apart is not None:
            differ |= apart
        return VectorJudgement(differ, 1.0 - np.nan_to_num(score, nan=-2.0), score, apart)

    def worst_texts(r: Array, c: Array, score: float) -> tuple[str, str]:
        return f"{least:g} or more", _cosine_text(score, r, c)

    return result_by_vector(reference, candidate, judge, worst_texts, "value")


@np.errstate(invalid="ignore", over="ignore", divide="ignore", under="ignore")
def distribution(reference: Array, candidate: Array, *, source: Source, most: float) -> RuleResult:
    """Return where two distributions diverge by more than `most`.

    Shapes: both (rows, …, labels), equal. The score is the Jensen-Shannon divergence to base 2: 0
    where they are equal, 1 where they have nothing in common. Logits go through a softmax in
    float64; -inf is a probability of 0. Probabilities must not be below 0 and sum to 1 within 0.01,
    and are divided by their sum. Values that are no distribution, on either side, are a mismatch
    that says so. NaN on one side alone is a mismatch of kind nan; labels that are NaN on both sides
    are left out. Raises ShapeMismatch.
    Source: Lin 1991, Divergence Measures Based on the Shannon Entropy.
    """
    fill = -np.inf if source == "logits" else 0.0
    probabilities = _softmax if source == "logits" else _normalised

    def judge(r: Array, c: Array) -> VectorJudgement | None:
        r, c, apart, empty = without_nan(as_float(r), as_float(c), fill=fill)
        score = _divergence(probabilities(r), probabilities(c))
        if empty is not None:
            score = np.where(empty, 0.0, score)
        differ = ~(score <= most)
        if apart is not None:
            differ |= apart
        return VectorJudgement(differ, np.nan_to_num(score, nan=2.0), score, apart)

    return result_by_vector(reference, candidate, judge, _divergence_texts(source, most), "value")


# ---------------------------------------------------------------- cosine


def _cosine(r: Floats, c: Floats) -> Floats:
    score, norms = _plain_cosine(r, c)
    odd = ~(np.isfinite(norms) & (norms > _TINY))
    if odd.any():
        score[odd] = _odd_cosine(r[odd], c[odd])
    return score


def _plain_cosine(r: Floats, c: Floats) -> tuple[Floats, Floats]:
    dot = np.einsum("ij,ij->i", r, c)
    norms = np.einsum("ij,ij->i", r, r) * np.einsum("ij,ij->i", c, c)
    return np.clip(dot / np.sqrt(norms), -1.0, 1.0), norms


def _odd_cosine(r: Floats, c: Floats) -> Floats:
    """Return the cosine of vectors whose squares are zero, or more than a float holds."""
    r_size, c_size = (np.abs(each).max(axis=-1, keepdims=True) for each in (r, c))
    score, _ = _plain_cosine(r / r_size, c / c_size)
    is_zero = np.hstack((r_size == 0, c_size == 0))
    score = np.where(is_zero.all(axis=-1), 1.0, np.where(is_zero.any(axis=-1), 0.0, score))
    is_infinite = np.isinf(r_size[:, 0]) | np.isinf(c_size[:, 0])
    return np.where(is_infinite, np.where((r == c).all(axis=-1), 1.0, np.nan), score)


def _cosine_text(score: float, r: Array, c: Array) -> str:
    if not np.isnan(score):
        return f"{score:.6g}"
    names = [name for name, side in (("reference", r), ("candidate", c)) if np.isinf(side).any()]
    return f"no direction: infinity in the {' and the '.join(names)}"


# ---------------------------------------------------------------- distributions


def _softmax(logits: Floats) -> Floats:
    """Return probabilities; NaN for logits that have none: with +inf, or all of them -inf."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def _normalised(values: Floats) -> Floats:
    """Return the values with a sum of 1; NaN for those that are no probabilities."""
    total = values.sum(axis=-1, keepdims=True)
    is_good = _is_probabilities(values, total)
    return np.where(is_good, values.clip(0.0) / total, np.nan)


def _is_probabilities(values: Floats, total: Floats) -> Mask:
    is_positive = values.min(axis=-1, keepdims=True) >= -_NEGATIVE_SLACK
    return np.asarray(is_positive & (np.abs(total - 1.0) <= _SUM_SLACK))


def _divergence(p: Floats, q: Floats) -> Floats:
    """Return the Jensen-Shannon divergences in bits; NaN where a side is."""
    apart = _entropy((p + q) / 2.0) - (_entropy(p) + _entropy(q)) / 2.0
    return np.asarray(np.clip(apart / np.log(2.0), 0.0, 1.0))


def _entropy(p: Floats) -> Floats:
    # 0·ln 0 is 0: the smallest normal number takes the place of the zero under the logarithm.
    return np.asarray(-np.einsum("ij,ij->i", p, np.log(np.maximum(p, np.finfo(np.float64).tiny))))


def _divergence_texts(source: Source, most: float) -> WorstTexts:
    def worst_texts(r: Array, c: Array, score: float) -> tuple[str, str]:
        if np.isnan(score):
            return _distribution_text(as_float(r), source), _distribution_text(as_float(c), source)
        return f"{most:g} bits or less", f"{score:.6g}"

    return worst_texts


def _distribution_text(values: Floats, source: Source) -> str:
    values = values[~np.isnan(values)]
    if source == "logits":
        is_good = np.isfinite(values.max())
        return "logits" if is_good else "no logits: an infinity is the largest"
    if values.min() < -_NEGATIVE_SLACK:
        return f"no probabilities: {values.min():g}"
    total = values.sum()
    is_good = abs(total - 1.0) <= _SUM_SLACK
    return "probabilities" if is_good else f"no probabilities: their sum is {total:g}"
