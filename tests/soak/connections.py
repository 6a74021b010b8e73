"""Which TCP connection is whose: a process's by its files, a gRPC channel's by channelz."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc

# Nothing public says which port a channel is connected from.
from grpc._cython import cygrpc  # type: ignore[attr-defined]

_ESTABLISHED = "01"


def broken(port: int, living: Iterable[int]) -> set[int]:
    """Return the clients' ports of the connections to a port that none of the living has.

    A connection that its listener has not accepted yet is nobody's, and broken with it.
    """
    # In this order: what is accepted meanwhile is found.
    inodes = dict(_established(port))
    held = {inode for pid in living for inode in _sockets(pid)}
    return {client for client, inode in inodes.items() if inode not in held}


class Traced:
    """A channel of which the ports of its connections are known."""

    def __init__(self, target: str, options: Iterable[tuple[str, int]]) -> None:
        known = _channels()
        self.channel = grpc.aio.insecure_channel(
            target, options=[*options, ("grpc.enable_channelz", 1)]
        )
        [self._id] = _channels() - known

    def ports(self) -> list[int]:
        """Return the local ports of its connections."""
        channel = json.loads(cygrpc.channelz_get_channel(self._id))["channel"]
        return [port for each in channel["subchannelRef"] for port in _ports(each)]


def _channels() -> set[int]:
    said = json.loads(cygrpc.channelz_get_top_channels(0))
    return {int(each["ref"]["channelId"]) for each in said.get("channel", [])}


def _ports(subchannel: dict[str, str]) -> Iterator[int]:
    number = int(subchannel["subchannelId"])
    for each in json.loads(cygrpc.channelz_get_subchannel(number))["subchannel"]["socketRef"]:
        socket = json.loads(cygrpc.channelz_get_socket(int(each["socketId"])))["socket"]
        yield int(socket["local"]["tcpipAddress"]["port"])


def serving_process(caller: int, port: int, processes: Iterable[int]) -> int:
    """Return which of the processes has a connection of the caller to that port."""
    held = set(_sockets(caller))
    ports = {near for near, far, inode in _connections() if far == port and inode in held}
    inodes = {inode for far, inode in _established(port) if far in ports}
    return next(pid for pid in processes if inodes & set(_sockets(pid)))


def _established(port: int) -> Iterator[tuple[int, str]]:
    """Yield the far port and the inode of this machine's end of each connection to a port."""
    return ((far, inode) for near, far, inode in _connections() if near == port)


def _connections() -> Iterator[tuple[int, int, str]]:
    """Yield both ports and the inode of each end of a connection that is on this machine."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, remote, state, *_, inode = line.split()[:10]
            if state == _ESTABLISHED:
                yield _port(local), _port(remote), inode


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)


def _sockets(pid: int) -> Iterator[str]:
    """Yield the inode of each socket that a process has open."""
    for file in Path(f"/proc/{pid}/fd").iterdir():
        try:
            points_to = str(file.readlink())
        except FileNotFoundError:  # closed since
            continue
        if points_to.startswith("socket:["):
            yield points_to.removeprefix("socket:[").removesuffix("]")
