"""An index from symbols to the protocol files that define them, and to their imports."""

from collections.abc import Iterable, Iterator
from itertools import chain

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)


class SymbolIndex:
    """Finds files by what they define: all that they import must be among `files`."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._files = {each.name: each for each in files}
        self._bytes = {name: each.SerializeToString() for name, each in self._files.items()}
        self._file_of = {symbol: each.name for each in self._all() for symbol in symbols_of(each)}
        self._messages = {full: each for file in self._all() for full, each in _messages_of(file)}
        self._extensions = {
            (each.extendee.removeprefix("."), each.number): file.name
            for file in self._all()
            for each in _extensions_of(file)
        }

    def file_of_symbol(self, symbol: str) -> str | None:
        """Return the name of the file that defines it; None: none does."""
        return self._file_of.get(symbol)

    def file_of_extension(self, message: str, number: int) -> str | None:
        """Return the name of the file that extends `message` by `number`; None: none does."""
        return self._extensions.get((message, number))

    def extension_numbers(self, message: str) -> list[int] | None:
        """Return the numbers of all extensions of `message`; None: there is no such message."""
        if message not in self._messages:
            return None
        return sorted(number for extended, number in self._extensions if extended == message)

    def with_imports(self, file: str) -> list[bytes] | None:
        """Return the file, serialized, then all that it imports; None: there is no such file.

        In the order in which gRPC's own servers send them: callers take the first for theirs.
        """
        if file not in self._files:
            return None
        names = dict.fromkeys([file])
        waiting = [file]
        while waiting:
            imports = self._files[waiting.pop(0)].dependency
            waiting += [each for each in imports if each not in names]
            names |= dict.fromkeys(imports)
        return [self._bytes[each] for each in names]

    def _all(self) -> Iterable[FileDescriptorProto]:
        return self._files.values()


def symbols_of(file: FileDescriptorProto) -> Iterator[str]:
    """Yield the full name of all that `file` defines: down to methods, fields and enum values."""
    for service in file.service:
        full = _full_name(file.package, service.name)
        yield full
        yield from (f"{full}.{each.name}" for each in service.method)
    for full, message in _messages_of(file):
        yield full
        for part in (message.field, message.oneof_decl, message.extension):
            yield from (f"{full}.{each.name}" for each in part)
        yield from _enum_symbols(full, message.enum_type)
    yield from _enum_symbols(file.package, file.enum_type)
    yield from (_full_name(file.package, each.name) for each in file.extension)


def _enum_symbols(scope: str, enums: Iterable[EnumDescriptorProto]) -> Iterator[str]:
    """Yield enums and their values: beside the enum, as protobuf has it, and as tools show it."""
    for each in enums:
        full = _full_name(scope, each.name)
        yield full
        for value in each.value:
            yield _full_name(scope, value.name)
            yield f"{full}.{value.name}"


def _messages_of(file: FileDescriptorProto) -> Iterator[tuple[str, DescriptorProto]]:
    yield from _messages_with_nested(file.package, file.message_type)


def _messages_with_nested(
    scope: str, messages: Iterable[DescriptorProto]
) -> Iterator[tuple[str, DescriptorProto]]:
    for each in messages:
        full = _full_name(scope, each.name)
        yield full, each
        yield from _messages_with_nested(full, each.nested_type)


def _extensions_of(file: FileDescriptorProto) -> Iterator[FieldDescriptorProto]:
    within = (message.extension for _, message in _messages_of(file))
    return chain(file.extension, chain.from_iterable(within))


def _full_name(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
