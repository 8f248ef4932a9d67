"""One guarantee under the plan of a seed: send, break, wait for the end, compare."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Final

from confluent_kafka import Producer

from lab.books import Books, compare
from lab.guarantees import ANSWERED, Guarantee
from lab.plan import CURRENCY, DROP_RATE, Kill, Payment, Plan
from lab.stage import READY, Stage, Worker
from lab.witness import Witness
from streamsocial_billing.audit.readers import read_ledger
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.settings import PAYMENTS

SENT_PER_S: Final = 45.0
"""During the faults; enough that each kill meets work, little enough that the slowest program keeps up."""
WAVE: Final = 20
"""Payments come in waves of so many: work waits when a worker dies."""
READY_WITHIN_S: Final = 60.0
AGAIN_WITHIN_S: Final = 45.0
"""So long the restarted program may take for the payment whose result it had sent."""
LOOK_S: Final = 0.02
LEDGER_PAGE: Final = 1000
KILL_WITHIN_S: Final = 8.0
"""So long an ordered kill may wait for its point; then the other worker gets the order."""


class LabFailed(Exception):
    """Raised where a run cannot show anything: a program that does not start, a gateway that ends."""


@dataclass
class Event:
    """Something that happened at `at_s` seconds after the first payment, for the page."""

    at_s: float
    what: str


@dataclass
class Outcome:
    """What one guarantee did. Times in seconds after the first payment, money in cents.

    latencies_ms        from sending to the first committed result, of payments sent during the faults
    drained_per_s       results a second of the payments that came at once, after the faults
    curve               (time, revenue by the committed reader, revenue by the other), a few times a second
    kills, crashes      workers that were killed, that ended by themselves
    stood_still         it gave no more results although payments were unanswered
    dropped_replies     replies that the gateway did not send
    """

    guarantee: Guarantee
    seed: int
    sent: int = 0
    payments: int = 0
    books: Books | None = None
    latencies_ms: list[float] = field(default_factory=list)
    drained_per_s: float | None = None
    curve: list[tuple[float, int, int]] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    kills: int = 0
    crashes: int = 0
    dropped_replies: int = 0
    stood_still: bool = False
    committed_revenue: int = 0
    uncommitted_revenue: int = 0
    seconds: float = 0.0

    def percentile_ms(self, share: float) -> float | None:
        """A latency; None where nothing was answered."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


Show = Callable[[Outcome, Witness, str], None]


class Run:
    """Plays a plan on a stage."""

    def __init__(self, stage: Stage, plan: Plan, show: Show) -> None:
        self._stage = stage
        self._plan = plan
        self._show = show
        self.outcome = Outcome(stage.guarantee, plan.seed)
        self._sent_at: dict[str, float] = {}
        self._kills = _kills(stage.guarantee, plan)
        self._ordered: tuple[Kill, Worker, float] | None = None
        self._dropping = self._joined = False
        self._left = self._dropped = False

    def play(self) -> Outcome:
        """All of it; raises LabFailed."""
        began = time.monotonic()
        with Witness(self._stage.settings) as witness:
            self._witness = witness
            self._start_workers()
            self._producer = Producer(self._stage.settings.client_config() | {
                "enable.idempotence": True, "partitioner": "murmur2_random", "linger.ms": 1, "log_level": 0,
            })  # fmt: skip
            self._zero = time.time()
            if self._stage.guarantee.first_alone:
                self._kill_with_its_result_sent()
            self._storm()
            self._heal()
            self._wait_answered("waits for the last results")
            self._drain()
            self._stop_workers()
            self._close_books(witness)
        self.outcome.seconds = time.monotonic() - began
        return self.outcome

    # -- the phases

    def _start_workers(self) -> None:
        names = ("w1",) if self._stage.guarantee.first_alone else ("w1", "w2")
        started = [self._stage.workers[name] for name in names]
        for worker in started:
            worker.launch()
        for worker in started:
            if worker.wait_line(READY, READY_WITHIN_S) is None:
                raise LabFailed(f"{self._name} does not start: {worker.tail()}")

    def _kill_with_its_result_sent(self) -> None:
        """One payment, one worker, killed with the result sent; then the second worker joins."""
        worker = self._stage.workers["w1"]
        worker.order("SIGKILL", ANSWERED)
        self._send(self._plan.events[0])
        self._producer.flush(10)
        if not worker.wait(READY_WITHIN_S):
            raise LabFailed(f"{self._name} does not handle a payment: {worker.tail()}")
        self.outcome.kills += 1
        self._say(f"w1, alone, is killed: {self._stage.guarantee.points[ANSWERED]}")
        worker.launch()
        deadline = time.monotonic() + AGAIN_WITHIN_S
        while len(self._witness.committed.results) < 2 and time.monotonic() < deadline:
            self._tick("starts again", 0.0, keep=("w1",))
        self._stage.workers["w2"].launch()

    def _storm(self) -> None:
        """Payments at an even pace, faults at their share of them."""
        events, storm, began_s = self._plan.events, self._plan.storm, time.time()
        while self.outcome.sent < storm or (self._pending and self.outcome.sent < len(events)):
            while time.time() < began_s + self.outcome.sent / SENT_PER_S:
                self._tick("faults", self.outcome.sent / storm)
            for payment in events[self.outcome.sent :][:WAVE]:
                self._send(payment)
        self._producer.flush(10)
        self._storm_ids = set(self._sent_at)

    @property
    def _pending(self) -> bool:
        """A kill waits for its point: a point is passed only while there is work."""
        return bool(self._kills or self._ordered)

    def _heal(self) -> None:
        """No fault from here on; every worker that should run runs."""
        self._stage.gateway.faults()
        for name in ("w1", "w2"):
            worker = self._stage.workers[name]
            worker.withdraw()
            if not worker.running:
                self._restart(worker)

    def _restart(self, worker: Worker) -> None:
        """A worker that nobody killed has ended."""
        self.outcome.crashes += 1
        why = re.findall(r"reason=(\w+)\(", worker.tail(200))
        self._say(f"{worker.name} ended by itself ({why[-1] if why else 'no reason given'}), starts again")
        worker.launch()

    def _drain(self) -> None:
        """What is left of the payments, all at once: how fast is that."""
        rest = self._plan.events[self.outcome.sent :]
        if self.outcome.stood_still or not rest:
            return
        before = len(self._witness.committed.results)
        for payment in rest:
            self._send(payment)
        self._producer.flush(10)
        self._wait_answered("handles a backlog")
        came = [at for at, _ in self._witness.committed.results[before:]]
        if len(came) > 1 and not self.outcome.stood_still:
            self.outcome.drained_per_s = len(came) / max(0.001, came[-1] - came[0])

    def _stop_workers(self) -> None:
        for worker in self._stage.workers.values():
            if worker.running and not worker.terminate(20):
                self._say(f"{worker.name} did not stop when asked: killed")

    def _close_books(self, witness: Witness) -> None:
        out = self.outcome
        time.sleep(0.3)  # the readers' last poll
        results = list(witness.committed.results)
        out.latencies_ms = [
            1000 * (at - self._sent_at[key]) for key, at in witness.committed.first_at.items()
            if key in self._storm_ids
        ]  # fmt: skip
        events = self._plan.events[: out.sent]
        payments = list(dict.fromkeys(events))
        out.payments = len(payments)
        charges, _ = read_ledger(self._stage.gateway.url, LEDGER_PAGE)
        out.books = compare(payments, events, charges, [one for _, one in results])
        out.committed_revenue = witness.committed.revenue
        out.uncommitted_revenue = witness.uncommitted.revenue
        out.dropped_replies = self._stage.gateway.stats()["faults"].get("drop_after_charge", 0)
        self._point_on_curve()

    # -- what happens again and again

    def _tick(self, phase: str, share: float, keep: Sequence[str] = ("w1", "w2")) -> None:
        """Faults that are due, restarts, a look at the readers."""
        self._kill_if_due(share)
        self._drop_replies_if_due(share)
        self._join_and_leave_if_due(share)
        for name in keep:
            worker = self._stage.workers[name]
            if not worker.running and not (self._ordered and self._ordered[1] is worker):
                self._restart(worker)
        if not self._stage.gateway.running:
            raise LabFailed(f"the gateway ended: {self._stage.gateway.tail()}")
        self._point_on_curve()
        self._show(self.outcome, self._witness, phase)
        time.sleep(LOOK_S)

    def _kill_if_due(self, share: float) -> None:
        if self._ordered is not None:
            kill, worker, ordered_at = self._ordered
            if worker.running:
                if time.time() > ordered_at + KILL_WITHIN_S:
                    self._order(kill, other=worker)
                return
            self._ordered = None
            self.outcome.kills += 1
            self._say(f"{worker.name} is killed: {self._stage.guarantee.points[kill.point]}")
            worker.launch()
        elif self._kills and share >= self._kills[0].share:
            kill = self._kills.pop(0)
            self._order(kill, other=self._stage.workers[("w1", "w2")[kill.worker]])

    def _order(self, kill: Kill, other: Worker) -> None:
        """Let the worker that is not `other` end at the point; where it has no work, the other one later."""
        other.withdraw()
        worker = self._stage.workers["w2" if other.name == "w1" else "w1"]
        worker.order("SIGKILL", kill.point)
        self._ordered = (kill, worker, time.time())

    def _drop_replies_if_due(self, share: float) -> None:
        begin, end = self._plan.dropping
        if not self._dropped and not self._dropping and share >= begin:
            self._dropping = True
            self._stage.gateway.faults(drop_after_charge=DROP_RATE, seed=self._plan.seed)
            self._say("the gateway charges, but drops one reply in four")
        elif self._dropping and share >= end:
            self._dropping, self._dropped = False, True
            self._stage.gateway.faults()
            self._say("the gateway answers again")

    def _join_and_leave_if_due(self, share: float) -> None:
        begin, end = self._plan.joining
        guest = self._stage.workers["w3"]
        if not self._joined and share >= begin:
            self._joined = True
            guest.launch()
            self._say("w3 joins: the partitions are shared out anew")
        elif self._joined and not self._left and share >= end and guest.running:
            self._left = True
            guest.terminate(20)
            self._say("w3 leaves in order")

    def _wait_answered(self, phase: str) -> None:
        """Until each payment sent has a final result, or nothing has come for a long while."""
        before, changed_at = -1, time.monotonic()
        while not self._answered():
            count = len(self._witness.committed.results)
            if count != before:
                before, changed_at = count, time.monotonic()
            if time.monotonic() - changed_at > self._stage.guarantee.patience_s:
                if not self._stage.guarantee.may_lose:
                    self.outcome.stood_still = True
                    patience_s = self._stage.guarantee.patience_s
                    self._say(f"no result for {patience_s:.0f} s, payments are unanswered")
                return
            self._tick(phase, 1.0)

    def _answered(self) -> bool:
        return self._witness.committed.final >= self._sent_at.keys()

    # -- small things

    @property
    def _name(self) -> str:
        return self._stage.guarantee.title

    def _send(self, payment: Payment) -> None:
        at_s = time.time()
        self._sent_at.setdefault(payment.payment_id, at_s)
        self._producer.produce(
            self._stage.settings.topic(PAYMENTS), as_event(payment, int(at_s * 1000)),
            key=payment.user_id.encode(),
        )  # fmt: skip
        self._producer.poll(0)
        self.outcome.sent += 1

    def _point_on_curve(self) -> None:
        at_s = time.time() - self._zero
        if self.outcome.curve and at_s < self.outcome.curve[-1][0] + 0.2:
            return
        revenue = self._witness.committed.revenue, self._witness.uncommitted.revenue
        self.outcome.curve.append((at_s, *revenue))

    def _say(self, what: str) -> None:
        self.outcome.events.append(Event(time.time() - self._zero, what))


def _kills(guarantee: Guarantee, plan: Plan) -> list[Kill]:
    """The plan's kills at the points that this program passes, without one that it had before the storm."""
    had = ANSWERED if guarantee.first_alone else None
    return [one for one in plan.kills if one.point in guarantee.points and one.point != had]


def as_event(payment: Payment, at_ms: int) -> bytes:
    """The payment as an event on `payments`."""
    fields = asdict(payment) | {"currency": CURRENCY, "gateway": "simulated"}
    return PaymentEvent.from_mapping(fields, now_ms=at_ms).to_bytes()
