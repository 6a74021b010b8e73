"""How often addresses are probed, names looked up, and files read again."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intervals:
    """All are in seconds, and vary by ± 20 % where many tasks do the same."""

    probe_every_s: float = 3.0
    # The time for an answer to a probe. There are two: we ourselves may have been late once.
    probe_deadline_s: float = 1.0
    # Between probes of an address that is doubted or does not answer; at most `probe_every_s`.
    probe_pause_s: float = 1.0
    watch_again_s: float = 1.0
    watch_again_max_s: float = 30.0

    lookup_every_s: float = 5.0
    # Between lookups of a name that loses addresses; at most `lookup_every_s`.
    lookup_pause_s: float = 1.0
    lookup_patience_s: float = 5.0

    files_every_s: float = 3.0
    # The pool closes an address that has left once it is idle, or after this time.
    idle_every_s: float = 0.5
    idle_max_s: float = 300.0
