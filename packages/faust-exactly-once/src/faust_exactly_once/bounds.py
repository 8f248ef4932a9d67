"""The bounds of one worker: how many handlers run, how many bytes are held (point 10)."""

import asyncio
import sys

from .options import Options


class Share:
    """The handlers of one source topic, in all tasks of a worker.

    Attributes:
        running: handlers, those included that wait for their turn.
        most: so many at once.
    """

    __slots__ = ("most", "running")

    def __init__(self, most: int = sys.maxsize) -> None:
        self.running = 0
        self.most = most


class Bounds:
    """Counts what the tasks of a worker have under way.

    Attributes:
        running: handlers of all shares.
        held_bytes: of units.
        most_running: so many handlers at once.
        asked: somebody waits for room who has not been told since that a handler has ended.
    """

    def __init__(self, options: Options) -> None:
        self.running = 0
        self.held_bytes = 0
        self.most_running = options.max_running
        self.asked = False
        self._options = options
        self._shares: dict[str, Share] = {}
        self._room = asyncio.Event()

    def share(self, topic: str) -> Share:
        """The share of a source topic."""
        if topic not in self._shares:
            self._shares[topic] = Share(self._options.max_running_of.get(topic, self.most_running))
        return self._shares[topic]

    def has_room(self) -> None:
        """Tell those who wait that a handler has ended; who starts or ends one counts it, here and there."""
        self.asked = False
        self._room.set()

    def holds_too_much(self) -> bool:
        """True while nothing more may be fetched."""
        return self.held_bytes > self._options.max_waiting_bytes

    def is_full(self, share: Share) -> bool:
        """True if no handler of this share may start now."""
        return self.running >= self.most_running or share.running >= share.most

    async def room(self, share: Share) -> None:
        """Wait until a handler of this share may start."""
        while self.is_full(share):
            self._room.clear()
            self.asked = True
            await self._room.wait()
