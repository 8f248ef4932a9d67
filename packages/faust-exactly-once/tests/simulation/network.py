"""What lies between a process and the broker: requests, answers are delayed, lost, or come too late."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .broker import Broker
from .clock import Clock
from .process import Process

LOST = "lost"  # what a client sees when its connection breaks: it cannot know what the broker did
LATENCY_S = (0.0005, 0.004)
NOTICED_S = 0.02  # after this a client knows that its connection is broken
Serve = Callable[[Callable[[Any], None]], None]
Then = Callable[[Any], None]


@dataclass(slots=True)
class Trick:
    """What happens to the next request of a kind.

    `what` is one of "held up" (the request arrives late), "lost" (it never does), "no answer" (it arrives,
    the answer is lost), "broken" (the client is told that the connection broke; the request arrives late).
    """

    api: str
    what: str
    seconds: float = 0.0


@dataclass(slots=True)
class Link:
    """One process's way to the broker; `silent_until_s`: nothing gets through before."""

    tricks: list[Trick] = field(default_factory=list)
    slow_s: float = 0.0
    silent_until_s: float = 0.0
    flying: "dict[Call, None]" = field(default_factory=dict)
    last_arrival_s: dict[object, float] = field(default_factory=dict)


class Network:
    """Carries requests."""

    def __init__(self, clock: Clock, broker: Broker, *, in_order: bool) -> None:
        self.clock = clock
        self.in_order = in_order
        self.broker = broker
        self.links: dict[Process, Link] = {}

    def link(self, process: Process) -> Link:
        """A process's way to the broker."""
        return self.links.setdefault(process, Link())

    def call(
        self, process: Process, api: str, serve: Serve, then: Then, order: object = None
    ) -> None:
        """Send a request; `then` gets the answer, or LOST.

        Args:
            serve: what the broker does when the request arrives; it is given the way to answer.
            order: requests with the same one arrive in the order in which they were sent.
        """
        if process.dead:
            return
        link = self.link(process)
        call = Call(self, process, serve, then)
        link.flying[call] = None
        trick = next((trick for trick in link.tricks if trick.api == api), None)
        if trick is not None:
            link.tricks.remove(trick)
            self.clock.note(process.name, api, "is", trick.what)
        arrives_s = self.clock.now + self.delay(link) + call.suffer(trick)
        if order is not None:
            arrives_s = link.last_arrival_s[order] = max(arrives_s, link.last_arrival_s.get(order, 0.0))
        self.clock.after(arrives_s - self.clock.now, call.arrive)

    def delay(self, link: Link) -> float:
        """How long one way takes now."""
        low, high = LATENCY_S
        passes_s = max(0.0, link.silent_until_s - self.clock.now)
        return passes_s + low + self.clock.rng.random() * (high + link.slow_s)

    def cut(self, process: Process) -> None:
        """Break the process's connections: half of what is on its way still arrives, no answer does."""
        link = self.link(process)
        for call in list(link.flying):
            call.gone = self.clock.rng.random() < 0.5
            call.breaks(0.0)

    def cut_all(self) -> None:
        """The broker is gone: whatever is on its way is lost."""
        for link in self.links.values():
            for call in list(link.flying):
                call.gone = True
                call.breaks(0.0)


class Call:
    """One request on its way there, or its answer on its way back."""

    def __init__(self, network: Network, process: Process, serve: Serve, then: Then) -> None:
        self.gone = False
        self._network = network
        self._process = process
        self._serve = serve
        self._then: Then | None = then
        self._loses_answer = False

    def suffer(self, trick: Trick | None) -> float:
        """Take a trick; how much later the request arrives for it."""
        if trick is None:
            return 0.0
        if trick.what in ("lost", "broken"):
            self.gone = trick.what == "lost"
            self.breaks(NOTICED_S)
        self._loses_answer = trick.what == "no answer"
        return 0.0 if self.gone else trick.seconds

    def arrive(self) -> None:
        """The broker has the request."""
        if self.gone:
            return
        if self._network.broker.up:
            self._serve(self._answer)
        else:
            self.breaks(NOTICED_S)

    def _answer(self, answer: Any) -> None:
        if self._loses_answer:
            self.breaks(NOTICED_S)
            return
        network = self._network
        way_s = network.delay(network.link(self._process))
        network.clock.after(way_s, lambda: self._end(answer), self._process)

    def breaks(self, after_s: float) -> None:
        """Let the client know that the connection broke; an answer is not heard any more."""
        self._network.clock.after(after_s, lambda: self._end(LOST), self._process)

    def _end(self, answer: Any) -> None:
        then, self._then = self._then, None
        if then is not None:
            self._network.link(self._process).flying.pop(self, None)
            then(answer)
