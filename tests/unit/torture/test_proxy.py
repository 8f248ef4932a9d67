"""The proxy between real sockets: what passes, what waits, what is reset."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.until import until

from torture.proxy import Frames, Link, Proxies, api_key

PRODUCE, END_TXN = 0, 26  # kafka.apache.org/protocol, "API Keys"
HOLD_S = 0.2
FOR_LONG_S = 600.0
"""Longer than a test takes: what is held for so long does not come, what comes was not held."""
ABSENT_S = 0.3
"""How long is waited for what must not come."""


def request(key: int, body: bytes = b"") -> bytes:
    """A Kafka request: length, api key, version 0, then what the proxy does not read."""
    return struct.pack(">ihh", 4 + len(body), key, 0) + body


class Server:
    """The broker's place: keeps what each connection brings, answers every request with its own bytes."""

    def __init__(self) -> None:
        self.frames: list[tuple[float, bytes]] = []
        self.news = threading.Condition()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def wait(self, count: int, within_s: float = 60.0) -> bool:
        """True once so many requests have come."""
        with self.news:
            return self.news.wait_for(lambda: len(self.frames) >= count, within_s)

    def close(self) -> None:
        """No more connections."""
        self._listening.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._read, args=(connection,), daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        frames = Frames()
        with connection:
            try:
                while data := connection.recv(65_536):
                    for frame in frames.feed(data):
                        with self.news:
                            self.frames.append((time.monotonic(), frame))
                            self.news.notify_all()
                        connection.sendall(frame)
            except OSError:
                return


@pytest.fixture
def server() -> Iterator[Server]:
    """What stands behind the proxy."""
    one = Server()
    yield one
    with suppress(OSError):  # closed by the test
        one.close()


@pytest.fixture
def link(server: Server) -> Iterator[Link]:
    """A link to it."""
    with Proxies() as proxies:
        yield proxies.add(server.port)


def client(link: Link) -> socket.socket:
    """A connection through the link."""
    return socket.create_connection(("127.0.0.1", link.port), timeout=60)


def answer(connection: socket.socket, size: int) -> bytes:
    """So many bytes from the other side."""
    found = b""
    while len(found) < size and (data := connection.recv(size - len(found))):
        found += data
    return found


@given(st.lists(st.binary(max_size=200), max_size=8), st.data())
def test_requests_are_cut_whole_however_they_arrive(bodies: list[bytes], data: st.DataObject) -> None:
    """Each request comes out once, with its length, whatever the pieces; what is begun stays inside."""
    whole = b"".join(request(3, body) for body in bodies) + request(3, b"begun")[:-1]
    frames, found, at = Frames(), [], 0
    while at < len(whole):
        step = data.draw(st.integers(1, len(whole) - at))
        found += frames.feed(whole[at : at + step])
        at += step
    assert [request(3, body) for body in bodies] == found
    assert request(3, b"begun")[:-1] == frames.rest()


@given(st.integers(-(2**15), 2**15 - 1), st.binary(max_size=20))
def test_the_api_key_is_read_from_a_request(key: int, body: bytes) -> None:
    """The two bytes behind the length; a stump has none."""
    assert key == api_key(request(key, body))
    assert -1 == api_key(struct.pack(">ib", 1, 0))


@pytest.mark.parametrize("length", [0, -1, 2**31 - 1])
def test_what_is_no_kafka_request_is_refused(length: int) -> None:
    """A length that no request has."""
    with pytest.raises(ValueError, match=f"a request of {length} bytes"):
        Frames().feed(struct.pack(">i", length))


def test_end_txn_alone_is_held(server: Server, link: Link) -> None:
    """Other connections pass meanwhile; on its own connection nothing overtakes it."""
    link.trouble(hold_request_s=FOR_LONG_S)
    with client(link) as one, client(link) as other:
        one.sendall(request(PRODUCE, b"before") + request(END_TXN, b"end") + request(PRODUCE, b"after"))
        other.sendall(request(PRODUCE, b"other"))
        assert server.wait(2)
        until(lambda: bool(link.seen["held"]), "the proxy holds the one")
        assert not server.wait(3, ABSENT_S)
    assert {b"before", b"other"} == {frame[8:] for _, frame in server.frames}
    assert (1, 1) == (link.seen["end_txn"], link.seen["held"])


def test_a_held_request_arrives_although_its_sender_is_gone(server: Server, link: Link) -> None:
    """What a client gave up is not taken back: that is how a late EndTxn comes about; it is not overtaken."""
    link.trouble(hold_request_s=HOLD_S)
    began = time.monotonic()
    with client(link) as one:
        one.sendall(request(END_TXN, b"late") + request(PRODUCE, b"after"))
    assert server.wait(2)
    assert [request(END_TXN, b"late"), request(PRODUCE, b"after")] == [frame for _, frame in server.frames]
    assert HOLD_S <= server.frames[0][0] - began


def test_the_answer_alone_is_held(server: Server, link: Link) -> None:
    """The request is there however long its answer is held; the answer comes later."""
    link.trouble(hold_answer_s=FOR_LONG_S)
    with client(link) as one:
        one.sendall(request(END_TXN))
        assert server.wait(1)
    link.trouble(hold_answer_s=HOLD_S)
    with client(link) as one:
        began = time.monotonic()
        one.sendall(request(END_TXN))
        assert request(END_TXN) == answer(one, 8)
        assert HOLD_S <= time.monotonic() - began


def test_everything_is_delayed_both_ways(server: Server, link: Link) -> None:
    """A round trip takes twice the delay."""
    link.trouble(delay_s=0.2)
    with client(link) as one:
        began = time.monotonic()
        one.sendall(request(PRODUCE))
        assert request(PRODUCE) == answer(one, 8)
        assert 0.4 <= time.monotonic() - began


def test_a_silent_link_is_open_then_goes_on(server: Server, link: Link) -> None:
    """Nothing passes, nothing is closed; healed, everything arrives."""
    with client(link) as one:
        one.sendall(request(PRODUCE, b"1"))
        assert server.wait(1)
        link.trouble(silent=True)
        one.sendall(request(PRODUCE, b"2"))
        assert not server.wait(2, ABSENT_S)
        assert 1 == link.open_connections()
        link.trouble()
        assert server.wait(2)
        assert request(PRODUCE, b"1") + request(PRODUCE, b"2") == answer(one, 18)


def test_a_cut_resets_every_connection(server: Server, link: Link) -> None:
    """The client sees a reset, not an end; what comes later is served."""
    with client(link) as one:
        one.sendall(request(PRODUCE))
        assert server.wait(1)
        assert request(PRODUCE) == answer(one, 8)
        assert 1 == link.cut()
        with pytest.raises(ConnectionResetError):
            one.recv(1)
    with client(link) as two:
        two.sendall(request(PRODUCE))
        assert server.wait(2)


def test_a_refusing_link_resets_newcomers(link: Link) -> None:
    """They are accepted by the kernel, then reset."""
    link.trouble(refuse=True)
    with pytest.raises(ConnectionResetError), client(link) as one:
        one.recv(1)


def test_a_separation_outlasts_the_healing_of_other_trouble(server: Server, link: Link) -> None:
    """A broker without clients stays so while a worker's link has its own faults; then all arrives."""
    with client(link) as one:
        link.separate("silent")
        link.trouble(delay_s=0.01)
        link.trouble()
        one.sendall(request(PRODUCE, b"1"))
        assert not server.wait(1, ABSENT_S)
        link.separate()
        assert server.wait(1)
    link.separate("refused")
    link.trouble()
    with pytest.raises(ConnectionResetError), client(link) as another:
        another.recv(1)


def test_without_a_broker_a_client_is_reset(server: Server, link: Link) -> None:
    """As if nobody listened behind the proxy, which is so."""
    server.close()
    with pytest.raises(ConnectionResetError), client(link) as one:
        one.recv(1)
