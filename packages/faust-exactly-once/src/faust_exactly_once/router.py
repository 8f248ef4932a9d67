"""Sending a web request to the worker that owns its key, at most one hop."""

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import aiohttp
from aiokafka.partitioner import murmur2
from faust.app.router import Router as FaustRouter
from yarl import URL

from .layer import Layer

HOP_HEADER = "X-Exactly-Once-Hop"
RETRY_AFTER_S = 1
HOP_TIMEOUT_S = 5.0
MOST_ANSWERED = 65_536  # bytes of an answer to `ask`
# of the connection, not of the message; a compressed body was read as what it holds
OF_THE_HOP = frozenset({
    "connection", "content-encoding", "content-length", "expect", "host", "keep-alive", "transfer-encoding",
})  # fmt: skip
UNANSWERED = aiohttp.ClientError, TimeoutError, OSError
NOT_PASSED_BACK = OF_THE_HOP | {"content-type", "date", "server"}


class Passed(NamedTuple):
    """What the owner answered; `headers` are those that it set itself."""

    status: int
    body: bytes
    content_type: str
    headers: dict[str, str]


@lru_cache(maxsize=16_384)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` as Java, Faust and librdkafka's murmur2_random choose it."""
    return (int(murmur2(key)) & 0x7FFFFFFF) % partitions


def _is_text(value: str) -> bool:
    """False for a header whose bytes were not UTF-8: it cannot be written again."""
    return not any("\ud800" <= sign <= "\udfff" for sign in value)


async def _body(answer: aiohttp.ClientResponse, most: int | None) -> bytes:
    """What was answered; ClientPayloadError if that is more than `most` bytes."""
    if most is None:
        return await answer.read()
    try:
        await answer.content.readexactly(most + 1)
    except asyncio.IncompleteReadError as end:
        return end.partial
    raise aiohttp.ClientPayloadError(f"more than {most} bytes")


class Router(FaustRouter):
    """The layer's router: hashes message-key bytes, never forwards twice (point 5)."""

    def place(self, key: bytes) -> tuple[int, URL | None]:
        """The partition of a message key with its owner's address, None if nobody owns it now."""
        partition = partition_of(key, Layer.of(self.app).partitions)
        return partition, self.app.assignor.url_of(partition)  # type: ignore[attr-defined]

    def is_here(self, partition: int) -> bool:
        """True if this worker was assigned the partition."""
        return partition in Layer.of(self.app).assigned_tasks

    def is_own(self, url: URL) -> bool:
        """True for the address of this worker: an assignment names it for a while after its tasks ended."""
        return bool(url == self.app.conf.canonical_url)

    async def forward(self, url: URL | None, request: Any, body: bytes | None = None) -> Passed | None:
        """Pass a request on to the owner, with its body or, where the caller has read that, with `body`.

        None if it cannot be passed on now (the caller answers 503); of a request that writes it is then not
        known whether the owner did what it asks.
        """
        if url is None or HOP_HEADER in request.headers:
            return None
        target = url.join(URL(request.path_qs, encoded=True))
        try:
            async with asyncio.timeout(HOP_TIMEOUT_S):
                sent = await request.read() if body is None else body
                return await self._sent(request.method, target, request.headers, sent)
        except UNANSWERED:
            return None

    async def ask(
        self, url: URL, path: str, headers: Mapping[str, str], body: bytes, *, within_s: float
    ) -> Passed | None:
        """Ask the owner, with a POST to a page that only answers; the caller then acts for itself.

        None: no answer within `within_s` seconds, connecting included, or one of more than MOST_ANSWERED
        bytes. The page has a path of its own, so that a release which does not know it answers 404, and does
        nothing.
        """
        try:
            async with asyncio.timeout(within_s):
                return await self._sent("POST", url.join(URL(path)), headers, body, MOST_ANSWERED)
        except UNANSWERED:
            return None

    async def _sent(
        self, method: str, target: URL, headers: Mapping[str, str], body: bytes, most: int | None = None
    ) -> Passed:
        given = {k: v for k, v in headers.items() if k.lower() not in OF_THE_HOP and _is_text(v)}
        given[HOP_HEADER] = "1"
        async with self.app.http_client.request(method, target, headers=given, data=body) as answer:
            back = {k: v for k, v in answer.headers.items() if k.lower() not in NOT_PASSED_BACK}
            return Passed(answer.status, await _body(answer, most), answer.content_type, back)
