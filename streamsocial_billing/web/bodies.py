"""Bodies that come from outside, read within bounds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import Any, Final

from aiohttp import ClientPayloadError
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError

from streamsocial_billing.intake.webhooks.receiver import Busy

MAX_READ_AT_ONCE: Final = 50
"""Bodies being read before anybody knows who sends them."""
MAX_SLOW_OF_A_SOURCE: Final = 8
"""Of these, bodies of one address that were not there within the grace."""


class BodyFailed(Exception):
    """Raised when a request's body did not come whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a body has to come.

    grace_s      seconds in which it need not have begun
    bytes_per_s  least mean rate after them
    within_s     seconds after which it has to be whole
    """

    grace_s: float = 2.0
    bytes_per_s: float = 1_000.0
    within_s: float = 10.0

    def due_s(self, read: int) -> float:
        """Seconds after its beginning at which more than `read` bytes have to be there."""
        return min(self.within_s, self.grace_s + read / self.bytes_per_s)


async def read_body(request: Any, most: int, pace: Pace = Pace()) -> bytes | None:
    """The body, None if it is longer than `most`; raises BodyFailed."""
    whole = _arrived(request, most)
    return whole if whole is not _NOT_YET else await _Reading(request, most, pace).read()


class Bodies:
    """Reads bodies whose senders nobody knows yet.

    Only so many at once. One more costs the oldest one of the address that sends most of them: whoever sends
    slowly gives way to who does not, and cannot shut others out.
    """

    def __init__(
        self, most: int = MAX_READ_AT_ONCE, slow_of_a_source: int = MAX_SLOW_OF_A_SOURCE, pace: Pace = Pace()
    ) -> None:
        self._most = most
        self._slow_of_a_source = slow_of_a_source
        self._pace = pace
        self._reading: dict[_Reading, str] = {}
        self._slow: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._reading)

    async def read(self, request: Any, most: int) -> bytes | None:
        """The same as `read_body`; raises Busy, too, where others had to come first."""
        whole = _arrived(request, most)
        if whole is not _NOT_YET:
            return whole
        if len(self._reading) >= self._most:
            self._make_room()
        source = source_of(request.remote)
        reading = _Reading(request, most, self._pace)
        self._reading[reading] = source
        try:
            return await reading.read(lambda: self._is_slow(source))
        finally:
            self._reading.pop(reading, None)
            if reading.is_slow:
                self._slow[source] -= 1
                self._slow += Counter()  # keeps what is above 0

    def _make_room(self) -> None:
        sources = Counter(self._reading.values())
        most = max(sources.values())
        oldest = next(one for one, source in self._reading.items() if sources[source] == most)
        del self._reading[oldest]
        oldest.give_way()

    def _is_slow(self, source: str) -> None:
        """Count one of it; raises Busy if it has too many."""
        if self._slow[source] >= self._slow_of_a_source:
            raise Busy
        self._slow[source] += 1


class _Reading:
    """A body that is on its way.

    Attributes:
        is_slow: it was not there within the grace.
    """

    def __init__(self, request: Any, most: int, pace: Pace) -> None:
        self._content = request.content
        self._most = most
        self._pace = pace
        self._timeout: asyncio.Timeout | None = None
        self._gives_way = False
        self.is_slow = False

    def give_way(self) -> None:
        """End it: somebody else's place."""
        self._gives_way = True
        if self._timeout is not None and not self._timeout.expired():
            self._timeout.reschedule(asyncio.get_running_loop().time())

    async def read(self, is_slow: Callable[[], None] = lambda: None) -> bytes | None:
        """The body, None if it is too long; raises BodyFailed, Busy and what `is_slow` raises."""
        began = asyncio.get_running_loop().time()
        read = bytearray()
        while True:
            at = self._pace.due_s(len(read)) if self.is_slow else self._pace.grace_s
            try:
                async with asyncio.timeout_at(began + at) as self._timeout:
                    chunk = await self._content.readany()
            except TimeoutError:
                if self._gives_way:
                    raise Busy from None
                if self.is_slow:
                    raise BodyFailed(self._late(len(read))) from None
                is_slow()
                self.is_slow = True
                continue
            except (RequestPayloadError, ClientPayloadError, HttpProcessingError, OSError) as error:
                raise BodyFailed(f"the body is damaged ({type(error).__name__})") from None
            if self._gives_way:  # its last bytes came meanwhile
                raise Busy
            if not chunk and self._content.is_eof():
                return bytes(read)
            read += chunk
            if len(read) > self._most:
                return None

    def _late(self, read: int) -> str:
        pace = self._pace
        if pace.due_s(read) >= pace.within_s:
            return f"the body did not arrive within {pace.within_s:g} s"
        return f"the body came at less than {pace.bytes_per_s:g} bytes a second"


_NOT_YET: Final = b"not yet"
"""Its identity says that a body is on its way."""


def _arrived(request: Any, most: int) -> bytes | None:
    """A body that came with its head, as small ones do, without a timer; _NOT_YET: a part is missing."""
    if {*request.headers.getall("Content-Encoding", ())} - {"identity"}:
        raise BodyFailed("compressed bodies are not accepted")  # a signature is over the bytes on the wire
    if (request.content_length or 0) > most:
        return None
    content = request.content
    if not content.is_eof() or content.exception() is not None:
        return _NOT_YET
    whole: bytes = content.read_nowait(-1)
    return whole if len(whole) <= most else None


@lru_cache(maxsize=1024)
def source_of(remote: str | None) -> str:
    """Who is counted as one sender: an address, in IPv6 a network of 64 bits, which one customer has."""
    try:
        address = ip_address(remote or "")
    except ValueError:
        return remote or ""
    if not isinstance(address, IPv6Address):
        return str(address)
    return str(address.ipv4_mapped or IPv6Address(int(address) >> 64 << 64))
