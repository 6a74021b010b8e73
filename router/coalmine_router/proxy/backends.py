"""The backends of one table, ready to be called: channels, and bytes in, bytes out."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import grpc

from coalmine_router import wire
from coalmine_router.channels import Channels, address_of
from coalmine_router.table import Backend, Variant

RawCall = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]


class Target(NamedTuple):
    """One address of a backend, and a method there."""

    address: str
    call: RawCall
    channel: grpc.aio.Channel

    def out_of_reach(self) -> bool:
        """Return whether there is no connection now: then a failure is not the backend's answer."""
        return self.channel.get_state() is not grpc.ChannelConnectivity.READY


class BoundVariant:
    """A variant with its backend's channels: what the hot path calls."""

    def __init__(self, variant: Variant, backend: Backend, channels: Channels) -> None:
        self.variant = variant
        self.backend = backend.name
        # Appended to a request; empty where the caller's name and version stand.
        self.override = wire.override(variant.model, variant.version)
        self._backend = backend
        self._channels = channels
        self._turns: dict[str, Iterator[Target]] = {}

    def target(self, method: str) -> Target:
        """Return the next target in turn for a full method such as /package.Service/Method."""
        turns = self._turns.get(method)
        if turns is None:
            turns = self._turns[method] = itertools.cycle(
                [self._at(target, method) for target in self._backend.targets]
            )
        return next(turns)

    def _at(self, target: str, method: str) -> Target:
        channel = self._channels.channel(target)
        return Target(address_of(target), channel.unary_unary(method), channel)
