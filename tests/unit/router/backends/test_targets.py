import pytest
from hypothesis import given
from hypothesis import strategies as st

from coalmine.errors import StartError
from coalmine_router.backends.targets import Endpoint, Lookup, dns_server_of, parse_target


@pytest.mark.parametrize(
    ("target", "connects_to", "name"),
    [
        ("10.0.0.7:8001", "ipv4:10.0.0.7:8001", "10.0.0.7:8001"),
        ("ipv4:10.0.0.7:8001", "ipv4:10.0.0.7:8001", "10.0.0.7:8001"),
        ("ipv4:///10.0.0.7:8001", "ipv4:10.0.0.7:8001", "10.0.0.7:8001"),
        ("dns:///10.0.0.7:8001", "ipv4:10.0.0.7:8001", "10.0.0.7:8001"),
        ("[::1]:8001", "ipv6:[::1]:8001", "[::1]:8001"),
        ("ipv6:[::1]:8001", "ipv6:[::1]:8001", "[::1]:8001"),
        ("unix:/run/model.sock", "unix:/run/model.sock", "unix:/run/model.sock"),
        ("unix-abstract:model", "unix-abstract:model", "unix-abstract:model"),
    ],
)
def test_addresses_are_taken_as_they_are(target: str, connects_to: str, name: str) -> None:
    assert parse_target(target) == [Endpoint(connects_to, name)]


@pytest.mark.parametrize(
    ("target", "lookup"),
    [
        ("model:8001", Lookup("model", 8001)),
        ("dns:model:8001", Lookup("model", 8001)),
        ("dns:///model:8001", Lookup("model", 8001)),
        ("dns://1.1.1.1/model:8001", Lookup("model", 8001, "1.1.1.1")),
        ("dns://1.1.1.1:5353/model:8001", Lookup("model", 8001, "1.1.1.1:5353")),
        ("dns://[::1]:5353/model:8001", Lookup("model", 8001, "[::1]:5353")),
    ],
)
def test_names_are_looked_up_by_the_system_or_by_whom_the_target_says(
    target: str, lookup: Lookup
) -> None:
    assert parse_target(target) == [lookup]


def test_a_list_of_addresses_is_all_of_them() -> None:
    assert [
        each.name
        for each in parse_target("ipv4:1.1.1.1:80,2.2.2.2:81")
        if isinstance(each, Endpoint)
    ] == [
        "1.1.1.1:80",
        "2.2.2.2:81",
    ]


@pytest.mark.parametrize("target", ["model", "dns:///model", "ipv4:1.1.1.1", "dns://1.1.1.1/x"])
def test_a_target_without_a_port_is_refused(target: str) -> None:
    with pytest.raises(StartError, match="expected host:port"):
        parse_target(target)


def test_an_address_of_a_name_is_asked_for_and_trusted_by_the_name() -> None:
    lookup = Lookup("model", 8001)
    assert lookup.endpoint("::1") == Endpoint("ipv6:[::1]:8001", "[::1]:8001", "model:8001")


@pytest.mark.parametrize(
    ("server", "address"),
    [
        ("1.1.1.1", ("1.1.1.1", 53)),
        ("1.1.1.1:5353", ("1.1.1.1", 5353)),
        ("::1", ("::1", 53)),
        ("[::1]", ("::1", 53)),
        ("[::1]:5353", ("::1", 5353)),
    ],
)
def test_a_dns_server_is_an_address_with_or_without_a_port(
    server: str, address: tuple[str, int]
) -> None:
    assert dns_server_of(server) == address


@pytest.mark.parametrize("server", ["dns.test", "dns.test:53", "1.1.1.1:", ":53", ""])
def test_a_dns_server_by_name_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match=r"does not appear to be|invalid literal"):
        dns_server_of(server)


@given(ip=st.ip_addresses(), port=st.integers(1, 65_535))
def test_the_same_address_is_one_by_whatever_target(ip: object, port: int) -> None:
    host = f"[{ip}]" if ":" in str(ip) else str(ip)
    scheme = "ipv6" if ":" in str(ip) else "ipv4"
    [plain], [named] = parse_target(f"{host}:{port}"), parse_target(f"{scheme}:{host}:{port}")
    looked_up = Lookup("model", port).endpoint(str(ip))
    assert isinstance(plain, Endpoint)
    assert isinstance(named, Endpoint)
    assert plain.name == named.name == looked_up.name
