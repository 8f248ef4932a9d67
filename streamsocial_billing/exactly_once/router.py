"""Sending a web request to the worker that owns its key, at most one hop."""

import asyncio
from functools import lru_cache
from typing import Any

import aiohttp
from aiokafka.partitioner import murmur2
from faust.app.router import Router as FaustRouter
from yarl import URL

from .layer import Layer

HOP_HEADER = "X-Exactly-Once-Hop"
RETRY_AFTER_S = 1
HOP_TIMEOUT_S = 5.0
NOT_FORWARDED = frozenset({"host", "content-length", "transfer-encoding", "connection"})


@lru_cache(maxsize=16_384)
def _hash_of(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def partition_of(key: bytes, partitions: int) -> int:
    """The partition of `key` as Java, Faust and librdkafka's murmur2_random choose it."""
    return _hash_of(key) % partitions


class Router(FaustRouter):
    """The layer's router: hashes message-key bytes, never forwards twice (point 5)."""

    def place(self, key: bytes) -> tuple[int, URL | None]:
        """The partition of a message key with its owner's address, None if nobody owns it now."""
        partition = partition_of(key, Layer.of(self.app).partitions)
        return partition, self.app.assignor.url_of(partition)  # type: ignore[attr-defined]

    def is_here(self, partition: int) -> bool:
        """True if this worker was assigned the partition."""
        return partition in Layer.of(self.app).slots

    async def forward(self, url: URL | None, request: Any) -> tuple[int, bytes, str] | None:
        """Pass a request on to the owner.

        Returns:
            status, body, content type; None if it cannot be passed on now (the caller answers 503).
        """
        if url is None or HOP_HEADER in request.headers:
            return None
        headers = {k: v for k, v in request.headers.items() if k.lower() not in NOT_FORWARDED}
        headers[HOP_HEADER] = "1"
        target = url.join(URL(request.path_qs, encoded=True))
        try:
            async with asyncio.timeout(HOP_TIMEOUT_S):
                body = await request.read()
                async with self.app.http_client.request(
                    request.method, target, headers=headers, data=body
                ) as answer:
                    return answer.status, await answer.read(), answer.content_type
        except (aiohttp.ClientError, TimeoutError, OSError):
            return None
