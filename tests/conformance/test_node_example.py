"""The example of clients/node, called as its README says."""

import pytest

from tests.conformance.javascript import EXAMPLE, needs_node, told_by_node
from tests.doubles.processes import Started

pytestmark = needs_node

ROW = [64 * (i + 0.001) for i in range(10)]


def test_the_example_is_answered_by_a_server(server: Started) -> None:
    told = told_by_node(EXAMPLE / "digits.js", server.address("grpc"))
    assert (told["model"], told["version"], told["variant"]) == ("digits", "2", None)
    assert told["logits"] == pytest.approx(ROW)


def test_the_example_says_which_of_a_routers_variants_answered(router: Started) -> None:
    told = [told_by_node(EXAMPLE / "digits.js", router.address("data"), "digits") for _ in range(2)]
    assert {each["variant"] for each in told} <= {"stable", "canary"}
    assert all(each["logits"] == pytest.approx(ROW) for each in told)
