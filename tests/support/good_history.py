"""A history in which everything is as it must be, made record by record, to be spoilt by tests."""

from __future__ import annotations

import random
import struct
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import orjson
from support.stored import stored_payment

from streamsocial_billing.audit.books import (
    Books,
    LedgerCharge,
    add_dead_letter,
    add_event,
    add_metric,
    add_result,
    fold_entry,
    fold_state,
)
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.payment_identity import gateway_key_of
from streamsocial_billing.domain.results import charge_result, payment_metric
from tables.payments import Source
from torture.checker import History, Sending
from torture.segments import OFFSETS, Written

GROUP, PAYMENTS, RETRY = "billing", "payments", "payments-retry"
NAMES = (
    "charge-results", "payment-metrics", "payments-dlq", "payments", "charges", "open_payments", "offsets",
)  # fmt: skip
PARTITIONS = 2
USERS = ("ann", "bob", "cyd", "dan")


@dataclass
class GoodRun:
    """What a perfect system would have left; `history` reads it the way a run is read."""

    seed: int
    events: list[tuple[int, int, bytes]] = field(default_factory=list)
    sendings: list[Sending] = field(default_factory=list)
    topics: dict[str, list[Written]] = field(default_factory=lambda: defaultdict(list))
    ledger: list[LedgerCharge] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._entries: dict[str, dict[str, Any]] = {}
        self._states: dict[str, dict[str, Any]] = {}
        self._number = Counter[str]()
        self._transaction = Counter[int]()
        self.log_ends: dict[tuple[str, int], int] = {}
        for partition in range(PARTITIONS):
            self._a_task(partition)

    def history(self) -> History:
        """Everything that the checker asks about, from the records as they are now."""
        books = Books(ledger=list(self.ledger), log_start=dict.fromkeys(range(PARTITIONS), 0))
        for partition, offset, value in self.events:
            add_event(books, (partition, offset), value)
        for one in self.topics["charge-results"]:
            add_result(books, PAYMENTS, str(one.offset), one.value)
        for one in self.topics["payment-metrics"]:
            add_metric(books, str(one.offset), one.value)
        for one in self.topics["payments-dlq"]:
            add_dead_letter(books, PAYMENTS, dict(one.headers))
        for one in self.topics["payments"]:
            fold_entry(books, str(one.offset), one.key, one.value)
        for one in self.topics["charges"]:
            fold_state(books, str(one.offset), one.key, one.value)
        appended = Counter(value for _, _, value in self.events)
        written = {name: self.topics[name] for name in NAMES}
        return History(GROUP, books, self.sendings, written, appended, self.log_ends)

    def _a_task(self, partition: int) -> None:
        """One partition's events: appended in intake transactions, handled in commits of a few."""
        users = USERS[partition::PARTITIONS]
        values = [self._event(self._random.choice(users), n) for n in range(30)]
        for _ in range(9):
            values[self._random.randrange(len(values))] = values[self._random.randrange(len(values))]
        values[7] = b"not a payment"
        self.sendings += [Sending(tuple(values[at : at + 10]), "committed") for at in (0, 10, 20)]
        events = [(partition, offset, value) for offset, value in enumerate(values)]
        self.events += events
        self.log_ends[PAYMENTS, partition] = len(events)
        while events:
            count = self._random.randrange(1, 5)
            self._commit(partition, events[:count])
            del events[:count]

    def _event(self, user: str, number: int) -> bytes:
        about = {"user_id": user, "payment_id": f"pay-{user}-{number}", "amount_minor": 100 + number}
        return orjson.dumps(about | {"currency": "EUR", "product": "gift"})

    def _commit(self, partition: int, events: list[tuple[int, int, bytes]]) -> None:
        """One transaction: results, metrics, last values of changed keys, the offset."""
        self._transaction[partition] += 1
        changed: dict[tuple[str, str], Any] = {}
        for _, offset, value in events:
            if not value.startswith(b"{"):
                source = f"{PAYMENTS}/{partition}/{offset}".encode()
                self._write("payments-dlq", partition, b"", value, (("source", source),))
                continue
            self._answer(partition, offset, orjson.loads(value), changed)
        for (table, key), content in changed.items():
            self._write(table, partition, key.encode(), orjson.dumps(content))
        self._step(partition, events[-1][1] + 1)

    def _answer(self, partition: int, offset: int, paid: dict[str, Any], changed: dict[Any, Any]) -> None:
        user, name, amount = paid["user_id"], paid["payment_id"], paid["amount_minor"]
        payment = f"{user}/{name}"
        replayed = payment in self._entries
        source: Source = {"topic": PAYMENTS, "partition": partition, "offset": offset}
        entry = self._entries.setdefault(payment, self._charge(user, name, amount, source))
        common: Any = {
            "payment_id": name, "action": "charge", "product": "gift", "status": "succeeded",
            "replayed": replayed, "amount_minor": amount, "currency": "EUR", "gateway": "simulated",
        }  # fmt: skip
        self._write("charge-results", partition, user.encode(), charge_result(
            **common, user_id=user, reason=None, gateway_ref=entry["gateway_ref"], attempt=1,
            requested_at=1, processed_at=2, source=source,
        ))  # fmt: skip
        self._write("payment-metrics", 0, b"gift", payment_metric(**common, gateway_ms=1, at=2))
        if not replayed:
            changed["payments", payment] = entry
        changed["charges", user] = self._state(user, name, amount, replayed)

    def _charge(self, user: str, name: str, amount: int, source: Source) -> dict[str, Any]:
        if f"{user}/{name}" not in self._entries:
            ref = gateway_key_of(user, "charge", name)
            self.ledger.append(LedgerCharge(f"ch_{name}", f"{user}/{name}", ref, "succeeded", amount, "EUR"))
        event = PaymentEvent(
            payment_id=name, user_id=user, product="gift", amount_minor=amount, currency="EUR",
            payment_method="pm_card_visa", gateway="simulated", requested_at=1,
        )  # fmt: skip
        return stored_payment(event, source, f"ch_{name}", 2)

    def _state(self, user: str, name: str, amount: int, replayed: bool) -> dict[str, Any]:
        money = {"EUR": {"charged_minor": 0, "refunded_minor": 0}}
        fresh: dict[str, Any] = {"user_id": user, "money": money, "counts": {}, "last_payment": None}
        state: dict[str, Any] = orjson.loads(orjson.dumps(self._states.get(user, fresh)))
        counted = "replayed" if replayed else "succeeded"
        state["counts"][counted] = state["counts"].get(counted, 0) + 1
        if not replayed:
            state["money"]["EUR"]["charged_minor"] += amount
            state["last_payment"] = {"payment_id": name, "status": "succeeded", "at": 2}
        self._states[user] = state
        return state

    def _step(self, partition: int, offset: int) -> None:
        group, topic = GROUP.encode(), PAYMENTS.encode()
        layout = f">hh{len(group)}sh{len(topic)}si"
        key = struct.pack(layout, 1, len(group), group, len(topic), topic, partition)
        self._write("offsets", 0, key, struct.pack(">hq", 3, offset))

    def _write(
        self, topic: str, partition: int, key: bytes, value: bytes,
        headers: tuple[tuple[str, bytes], ...] = (),
    ) -> None:  # fmt: skip
        """A committed record of the task; the lead of a task is its producer id."""
        task = partition if topic not in ("payment-metrics", "offsets") else self._task_now(topic)
        offset = self._number[topic]
        self._number[topic] += 1
        place = (OFFSETS if topic == "offsets" else topic, partition)
        number = self._transaction[task]
        self.topics[topic].append(
            Written(place, offset, key, value, headers, 1000 + task, 0, number, offset + 1, "commit")
        )

    def _task_now(self, topic: str) -> int:
        """Tasks are made one after the other: the last one that began is at work."""
        return max(self._transaction)
