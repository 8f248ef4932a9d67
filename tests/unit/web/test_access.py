"""Who may read user data, or send payments, while no token is set."""

import socket
from types import SimpleNamespace

import pytest
from multidict import CIMultiDict

from streamsocial_billing.web.access import FORWARDING, may_read


def request(host: str, remote: str | None = "127.0.0.1", **headers: str) -> SimpleNamespace:
    """What of a request is looked at."""
    return SimpleNamespace(host=host, remote=remote, headers=CIMultiDict(headers))


@pytest.mark.parametrize("host", ["127.0.0.1:6066", "[::1]:6066", "localhost", "billing-1:6066", "192.0.2.1"])
def test_this_machine_itself_has_access(host: str) -> None:
    """By whatever address, or a name that is in nobody's DNS."""
    assert may_read(request(host), None)
    assert may_read(request(f"{socket.gethostname()}:6066"), None)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "."])
@pytest.mark.parametrize("more", ["", ":6066", ":x", "@127.0.0.1.example"])
def test_a_page_in_a_browser_of_this_machine_has_none(host: str, more: str) -> None:
    """Its owner points its name to 127.0.0.1; the browser then sends what the page asks for."""
    assert not may_read(request(host + more), None)


@pytest.mark.parametrize("name", FORWARDING)
def test_what_a_proxy_passed_on_has_none(name: str) -> None:
    """It is loopback for the proxy's sake."""
    assert not may_read(request("127.0.0.1", **{name: "127.0.0.1"}), None)


@pytest.mark.parametrize("remote", ["192.0.2.1", None, "no address"])
def test_other_machines_have_none(remote: str | None) -> None:
    """Whatever they call us."""
    assert not may_read(request("127.0.0.1", remote), None)


def test_with_a_token_it_alone_counts() -> None:
    """From everywhere, under every name."""
    there = request("billing.example", "192.0.2.1", Authorization="Bearer secret")
    assert (True, False) == (may_read(there, "secret"), may_read(request("127.0.0.1"), "secret"))
