"""How many rows two answers have. Pure."""

from collections.abc import Iterator, Mapping

from coalmine.tensors import Tensor
from coalmine_router.config.compare_section import CompareConfig, IgnoreRule, RuleConfig
from coalmine_router.observer.comparison.rules import is_of_vectors

Outputs = Mapping[str, Tensor]


def row_count(expected: Outputs, actual: Outputs, rules: CompareConfig) -> int | None:
    """Return how many rows the outputs have along their first dimension; None: they aren't batched.

    With `batched: auto` they are batched where every output of both answers that isn't ignored has
    the same first size, 1 at least, and a vector in each row if its rule judges vectors. With
    `true`, the first of the reference's outputs that has a dimension gives the number.
    """
    if rules.batched is False:
        return None
    if rules.batched is True:
        sizes = (
            tensor.array.shape[0]
            for tensor, _ in _judged_tensors(expected, rules)
            if tensor.array.ndim
        )
        return next(sizes, None) or None
    found = {
        _first_size(tensor, rule)
        for side in (expected, actual)
        for tensor, rule in _judged_tensors(side, rules)
    }
    return found.pop() or None if len(found) == 1 else None


def _judged_tensors(outputs: Outputs, rules: CompareConfig) -> Iterator[tuple[Tensor, RuleConfig]]:
    for name, tensor in outputs.items():
        rule = rules.outputs.get(name, rules.default)
        if not isinstance(rule, IgnoreRule):
            yield tensor, rule


def _first_size(tensor: Tensor, rule: RuleConfig) -> int:
    """Return the first size; 0 where it can't be a batch's."""
    shape = tensor.array.shape
    if not shape or (len(shape) == 1 and is_of_vectors(rule)):
        return 0
    return int(shape[0])
