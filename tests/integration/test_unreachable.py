"""Why a backend can't be connected to: gRPC's own words, from real handshakes, made plain."""

from pathlib import Path

import grpc
import pytest

from coalmine_router.unreachable import cut_in_the_middle, why_unreachable
from tests.doubles.certificates import EARLY, EXPIRED, Authority, Pair
from tests.doubles.split_route import closed_port
from tests.doubles.tls_server import TlsServer

MAX = 160


async def refusal(address: str, ca: bytes) -> str:
    """Return why a call to an address can't be made, by one who trusts `ca`."""
    credentials = grpc.ssl_channel_credentials(ca)
    async with grpc.aio.secure_channel(address, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/a/b", request_serializer=bytes)(b"", timeout=10)
    return why_unreachable(caught.value.details() or "", MAX)


async def said_of(pair: Pair, authority: Authority) -> str:
    async with TlsServer(pair) as server:
        return await refusal(server.address, authority.ca.read_bytes())


async def test_an_expired_certificate_and_an_early_one_are_told_apart(authority: Authority) -> None:
    old = authority.pair("old", "localhost", times=EXPIRED)
    early = authority.pair("early", "localhost", times=EARLY)
    assert await said_of(old, authority) == "its certificate has expired"
    assert await said_of(early, authority) == "its certificate is not valid yet"


async def test_a_certificate_for_another_name_is_told(authority: Authority) -> None:
    pair = authority.pair("other", "other", host="other.example")
    assert (await said_of(pair, authority)).startswith("its certificate is for another name")


async def test_another_authoritys_certificate_is_told(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "another authority")
    pair = other.server()
    alone = await said_of(pair, authority)
    assert alone.startswith("the issuer of its certificate is not in `ca`: ")
    pair.cert.write_bytes(pair.cert.read_bytes() + other.ca.read_bytes())
    with_its_own = await said_of(pair, authority)
    assert with_its_own == "its certificate is of another authority than those of `ca`"


async def test_a_chain_without_its_intermediate_is_told(
    authority: Authority, tmp_path: Path
) -> None:
    between = Authority(tmp_path / "between", "between", above=authority)
    said = await said_of(between.server(), authority)
    assert said.endswith("its file lacks the intermediate certificate")


async def test_a_server_without_tls_is_told(authority: Authority) -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    said = await refusal(f"127.0.0.1:{port}", authority.ca.read_bytes())
    await server.stop(None)
    assert said == "it does not speak TLS"


async def test_what_is_not_known_keeps_its_beginning_and_its_end(authority: Authority) -> None:
    said = await refusal(closed_port(), authority.ca.read_bytes())
    assert said.endswith("Connection refused")
    assert not said.startswith("failed to connect to all addresses")


@pytest.mark.parametrize("length", [0, 1, 19, 20, 21, 1_000])
def test_a_text_is_cut_in_its_middle_and_nowhere_else(length: int) -> None:
    text = "".join(chr(ord("a") + at % 26) for at in range(length))
    cut = cut_in_the_middle(text, 20)
    assert len(cut) == min(length, 20)
    if length <= 20:
        assert cut == text
    else:
        begin, end = cut.split(" … ")
        assert text.startswith(begin)
        assert text.endswith(end)
