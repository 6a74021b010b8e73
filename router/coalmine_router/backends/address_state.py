"""The state of an address, and whether it may get calls. Pure."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class AddressState:
    """What connection, health watch and probes report of an address.

    `is_settled`: the router knows whether the address can be connected to.
    """

    is_connected: bool = False
    is_heard: bool = False
    is_serving: bool = True
    is_answering: bool = True
    is_settled: bool = False
    why: str = ""

    @property
    def is_available(self) -> bool:
        """Whether it may get calls: it is connected, and reports nothing against them."""
        return self.is_connected and self.is_heard and self.is_serving and self.is_answering

    @property
    def trouble(self) -> str:
        """The reason why it gets no calls; "" where it gets calls."""
        if not self.is_connected:
            return f"no connection: {self.why}" if self.why else "no connection"
        if not self.is_answering:
            return "does not answer"
        if not self.is_heard:
            return "has not said yet whether it serves"
        return "" if self.is_serving else "says NOT_SERVING"

    @property
    def badness(self) -> int:
        """How bad a call to it would be; 0 is fine."""
        if self.is_available:
            return 0
        if not self.is_connected:
            return 3
        return 1 if self.is_answering else 2

    # ------------------------------------------------------------ what happens to it

    def after_connecting(self) -> "AddressState":
        """Return the state after a new connection. Reports over the old one no longer count."""
        return AddressState(is_connected=True)

    def after_loss(self) -> "AddressState":
        """Return the state after the loss of the connection."""
        return AddressState(is_settled=self.is_settled)

    def after_failure(self, why: str) -> "AddressState":
        """Return the state after a failed attempt to connect."""
        return AddressState(is_settled=True, why=why)

    def after_health_report(self, *, serving: bool) -> "AddressState":
        """Return the state after a report of its health. A report is an answer too."""
        heard = replace(self, is_serving=serving, is_answering=True)
        return replace(heard, is_heard=True, is_settled=True)

    def after_probe(self, *, answered: bool) -> "AddressState":
        """Return the state after a probe, answered or not."""
        heard = self.is_heard or answered
        return replace(self, is_answering=answered, is_heard=heard, is_settled=True)
