"""Prints what PyPI's confseq says of the sums that the tests of evidence compare with.

It has no wheel for a Python that coalmine runs on, and its source needs Boost and an older numpy.
So it is asked in an environment of its own, and its answers stand in the tests as constants:

    python3.10 -m venv /tmp/confseq && /tmp/confseq/bin/pip install confseq==0.0.11 'numpy<2'
    /tmp/confseq/bin/python tests/conformance/confseq_figures.py
"""

import math
from importlib import import_module
from typing import Any

import numpy as np

MIXTURE = [(0, 10), (7, 3), (30, 20), (10, 40), (260, 190), (900, 1_100)]
PAIRED = [(6, 90, 2, 0.01), (30, 400, 0, 0.01), (3, 10, 9, -0.2), (0, 500, 0, 0.01)]
STAKES = np.geomspace(0.02, 0.98, 10)
# At g = h = 1/2 the prior's r is rho - 1/4: this makes it 1/2, which weighs all rates alike.
_LOG = 2 * math.log(10)
V_OPT = 0.75 * (_LOG + math.log(1 + _LOG))


def mixture(ones: int, zeros: int) -> tuple[float, float]:
    """Return ln e against a mean of at most, and of at least, one half."""
    boundaries: Any = import_module("confseq.boundaries")
    score, variance = (ones - zeros) / 2, (ones + zeros) / 4
    above, below = (
        boundaries.beta_binomial_log_mixture(each, variance, V_OPT, 0.5, 0.5, 0.05, True)
        for each in (score, -score)
    )
    return above, below


def paired(worse: int, same: int, better: int, bound: float) -> tuple[float, float]:
    """Return ln e against a mean difference of at most, and of at least, `bound`."""
    betting: Any = import_module("confseq.betting")
    x, mean = np.repeat([1.0, 0.5, 0.0], [worse, same, better]), (bound + 1) / 2
    up = [lambda x, m, stake=stake: np.repeat(stake / m, len(x)) for stake in STAKES]
    down = [lambda x, m, stake=stake: np.repeat(stake / (1 - m), len(x)) for stake in STAKES]
    above, below = (
        betting.diversified_betting_mart(x, mean, bets, bets, theta=theta, trunc_scale=1)[-1]
        for bets, theta in ((up, 1), (down, 0))
    )
    return math.log(above), math.log(below)


if __name__ == "__main__":
    for sums in MIXTURE:
        print(sums, mixture(*sums))
    for counts in PAIRED:
        print(counts, paired(*counts))
    predmix: Any = import_module("confseq.predmix")
    low, high = predmix.predmix_empbern_cs(np.full(500, 0.5), 0.05)
    print("500 differences of 0, by empirical Bernstein", 2 * low[-1] - 1, 2 * high[-1] - 1)
