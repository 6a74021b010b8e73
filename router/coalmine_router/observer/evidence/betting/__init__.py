"""Evidence by betting: e-processes on means, valid at every look. Pure.

An e-process begins at 1, and its mean is at most 1 at any time one chooses to look, as long as its
hypothesis is true. So it ever reaches 1/alpha with probability alpha at most (Ville's inequality).
Each bet multiplies its wealth by what an observation pays; a mean of e-processes is one again.

Source: Waudby-Smith, Ramdas 2023, arXiv 2010.09686.
"""
