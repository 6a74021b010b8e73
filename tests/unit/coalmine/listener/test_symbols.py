"""Which file defines a symbol, and which files it needs."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.text_format import Parse

from coalmine.listener.symbols import SymbolIndex

TREE = """
name: "tree.proto" package: "a.b"
dependency: "leaf.proto" dependency: "branch.proto"
service { name: "Trees" method { name: "Grow" input_type: ".a.b.Tree" output_type: ".a.b.Tree" } }
message_type {
  name: "Tree"
  field { name: "height" number: 1 } field { name: "age" number: 2 oneof_index: 0 }
  oneof_decl { name: "known" }
  nested_type {
    name: "Bark" field { name: "colour" number: 1 }
    extension { name: "within" number: 101 extendee: ".c.Leaf" }
  }
  enum_type { name: "Kind" value { name: "OAK" number: 0 } }
}
enum_type { name: "Season" value { name: "SPRING" number: 0 } }
extension { name: "outside" number: 100 extendee: ".c.Leaf" }
"""
BRANCH = 'name: "branch.proto" package: "c" dependency: "leaf.proto" dependency: "root.proto"'
LEAF = """
name: "leaf.proto" package: "c"
message_type { name: "Leaf" extension_range { start: 100 end: 200 } }
"""
ROOT = 'name: "root.proto" message_type { name: "Root" }'

INDEX = SymbolIndex([Parse(each, FileDescriptorProto()) for each in (TREE, BRANCH, LEAF, ROOT)])


@pytest.mark.parametrize(
    "symbol",
    [
        *("a.b.Trees", "a.b.Trees.Grow", "a.b.Tree", "a.b.Tree.height", "a.b.Tree.age"),
        *("a.b.Tree.known", "a.b.Tree.Bark", "a.b.Tree.Bark.colour", "a.b.Tree.Bark.within"),
        *("a.b.Tree.Kind", "a.b.Tree.OAK", "a.b.Tree.Kind.OAK", "a.b.Season"),
        *("a.b.SPRING", "a.b.Season.SPRING", "a.b.outside"),
    ],
)
def test_every_symbol_of_a_file_is_found_in_it(symbol: str) -> None:
    assert INDEX.file_of_symbol(symbol) == "tree.proto"


def test_a_file_without_a_package_defines_bare_names() -> None:
    assert INDEX.file_of_symbol("Root") == "root.proto"


@pytest.mark.parametrize("symbol", ["", "a.b", "Tree", ".a.b.Tree", "a.b.Tree.nothing"])
def test_what_names_nothing_is_in_no_file(symbol: str) -> None:
    assert INDEX.file_of_symbol(symbol) is None


def test_a_file_comes_first_and_each_that_it_needs_comes_once() -> None:
    files = [
        FileDescriptorProto.FromString(each) for each in INDEX.with_imports("tree.proto") or ()
    ]
    assert [each.name for each in files] == [
        "tree.proto",
        "leaf.proto",
        "branch.proto",
        "root.proto",
    ]


def test_there_is_nothing_to_send_of_a_file_that_is_unknown() -> None:
    assert INDEX.with_imports("bush.proto") is None


def test_extensions_are_found_by_what_they_extend() -> None:
    assert INDEX.extension_numbers("c.Leaf") == [100, 101]
    assert INDEX.extension_numbers("a.b.Tree") == []
    assert INDEX.extension_numbers("c.Nothing") is None
    assert INDEX.file_of_extension("c.Leaf", 101) == "tree.proto"
    assert INDEX.file_of_extension("c.Leaf", 102) is None
