"""PEM files, checked before anything trusts in them."""

from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from coalmine.access.credentials import channel_credentials, server_credentials
from coalmine.access.tls_files import Tls, TlsFiles
from coalmine.errors import StartError
from tests.doubles.certificates import Authority


def refused(files: TlsFiles) -> str:
    with pytest.raises(StartError) as caught:
        server_credentials(files)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_certificate_and_its_key_are_credentials(authority: Authority) -> None:
    pair = authority.server()
    found = server_credentials(TlsFiles(pair.cert, pair.key, authority.ca))
    assert isinstance(found, grpc.ServerCredentials)


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    one, other = authority.server("one"), authority.server("other")
    assert refused(TlsFiles(one.cert, other.key)) == f"{other.key}: not the key of {one.cert}"


def test_a_chain_whose_own_certificate_is_not_the_first_is_named_as_that(
    authority: Authority, tmp_path: Path
) -> None:
    between = Authority(tmp_path / "between", "between", above=authority)
    pair = between.server()
    chain = tmp_path / "chain.pem"
    chain.write_bytes(between.ca.read_bytes() + pair.cert.read_bytes())
    assert refused(TlsFiles(chain, pair.key)) == (
        f"{chain}: certificate 2 in it is that of {pair.key}: "
        "it has to be the first, before those that signed it"
    )
    chain.write_bytes(pair.cert.read_bytes() + between.ca.read_bytes())
    assert isinstance(server_credentials(TlsFiles(chain, pair.key)), grpc.ServerCredentials)


@pytest.mark.parametrize("missing", ["cert", "key", "client_ca"])
def test_a_missing_file_is_named(authority: Authority, tmp_path: Path, missing: str) -> None:
    pair = authority.server()
    files = {"cert": pair.cert, "key": pair.key, "client_ca": authority.ca}
    files[missing] = tmp_path / "nowhere.pem"
    assert refused(TlsFiles(**files)) == f"{tmp_path}/nowhere.pem: no such file or directory"


@pytest.mark.parametrize("wrong", ["cert", "client_ca"])
@pytest.mark.parametrize("content", [b"", b"junk", b"\xff\xfe", "the key"])
def test_a_file_without_a_certificate_is_named(
    authority: Authority, tmp_path: Path, wrong: str, content: bytes | str
) -> None:
    pair = authority.server()
    junk = tmp_path / "junk.pem"
    junk.write_bytes(content if isinstance(content, bytes) else pair.key.read_bytes())
    files = {"cert": pair.cert, "key": pair.key, "client_ca": authority.ca, wrong: junk}
    assert refused(TlsFiles(**files)) == f"{junk}: not a certificate, PEM"


@pytest.mark.parametrize("content", [b"", b"junk"])
def test_a_file_without_a_key_is_named(
    authority: Authority, tmp_path: Path, content: bytes
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_bytes(content)
    problem = refused(TlsFiles(authority.server().cert, junk))
    assert problem == f"{junk}: not a private key, PEM and not encrypted"


def test_an_encrypted_key_is_refused_without_asking_anybody(
    authority: Authority, tmp_path: Path
) -> None:
    pair = authority.server()
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    pair.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    assert refused(TlsFiles(pair.cert, pair.key)).startswith(f"{pair.key}: not a private key")


# ---------------------------------------------------------------- callers


def test_a_caller_may_show_a_certificate_or_none(authority: Authority) -> None:
    pair = authority.client()
    for tls in (Tls(), Tls(authority.ca), Tls(authority.ca, pair.cert, pair.key)):
        assert isinstance(channel_credentials(tls), grpc.ChannelCredentials)


def test_a_callers_certificate_needs_its_key(authority: Authority) -> None:
    pair = authority.client()
    for tls in (Tls(cert=pair.cert), Tls(key=pair.key)):
        with pytest.raises(StartError, match="go together"):
            channel_credentials(tls)


def test_a_callers_wrong_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"nowhere\.pem: no such file"):
        channel_credentials(Tls(tmp_path / "nowhere.pem"))


def test_no_options_are_no_tls() -> None:
    assert Tls.from_options(None, None, None, None) is None
    assert Tls.from_options(None, None, None, "name") == Tls(server_name="name")
