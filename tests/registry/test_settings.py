import asyncio
import ssl
from pathlib import Path

import pytest
from pydantic import ValidationError

from radius_bridge.registry.consul import Consul
from radius_bridge.registry.errors import RegistryError
from radius_bridge.registry.settings import ConsulSettings
from tests.lab.pki import Authority


def test_the_defaults_are_the_agent_on_this_host_and_befws_root() -> None:
    settings = ConsulSettings()
    assert (settings.url, settings.root, settings.read_token()) == ("http://127.0.0.1:8500", "befw", "")


@pytest.mark.parametrize("root", ["", "/befw", "befw/", "a//b", "..", "a/../b", "$alias$", "a b", "ä"])
def test_a_root_that_is_no_plain_path_is_refused(root: str) -> None:
    with pytest.raises(ValidationError, match="root"):
        ConsulSettings(root=root)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8500", "ftp://x", "http://a/b", "http://user:secret@x", "http://x?y"])
def test_a_url_is_scheme_host_and_port_and_nothing_else(url: str) -> None:
    with pytest.raises(ValidationError, match="url"):
        ConsulSettings(url=url)


@pytest.mark.parametrize("url", ["http://consul", "https://[2001:db8::1]:8501", "http://127.0.0.1:8500/"])
def test_names_and_both_kinds_of_address_are_urls(url: str) -> None:
    assert ConsulSettings(url=url).url == url.rstrip("/")


def test_the_token_comes_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("s3cret\n")
    assert ConsulSettings(token_file=file).read_token() == "s3cret"


def test_a_token_file_that_everybody_can_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch()
    file.chmod(0o644)
    with pytest.raises(ValueError, match=r"token_file .*token can be read by everybody: chmod 640"):
        ConsulSettings(token_file=file).read_token()


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gone"):
        ConsulSettings(token_file=tmp_path / "gone").read_token()


@pytest.mark.parametrize("content", [b"", b"\n", b"one two\r\nthree", b"\xff\xfe"])
def test_a_file_that_holds_no_token_is_refused_without_quoting_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_bytes(content)
    with pytest.raises(ValueError, match="token_file") as caught:
        ConsulSettings(token_file=file).read_token()
    assert "three" not in str(caught.value)


def test_a_token_and_a_token_file_contradict_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="keep one"):
        ConsulSettings.model_validate({"token": "a", "token_file": tmp_path / "b"})


def test_a_token_is_never_shown() -> None:
    assert "s3cret" not in repr(ConsulSettings.model_validate({"token": "s3cret"}))


@pytest.mark.parametrize("content", [None, b"", b"no PEM"])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"ca_file .*ca\.pem: (cannot be read|holds no certificates)"):
        ConsulSettings(url="https://consul", ca_file=file).tls()


async def test_consuls_certificate_is_checked_with_the_systems_if_no_others_are_named(tmp_path: Path) -> None:
    """Though aiohttp was imported without them (radius_bridge.lean)."""
    ca = Authority(tmp_path)
    made = ca.issue("consul", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.certificate, made.key)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Length: 2\r\n\r\n[]")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context) as server:
        url = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        async with Consul(ConsulSettings(url=url)) as consul:
            with pytest.raises(RegistryError, match="certificate verify failed"):
                await consul.read_keys("befw/")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(ca.certificate))  # the system's, from now on
            async with Consul(ConsulSettings(url=url)) as consul:
                assert (await consul.read_keys("befw/")).index == 7
        async with Consul(ConsulSettings(url=url, ca_file=ca.certificate)) as consul:
            assert (await consul.read_keys("befw/")).index == 7
