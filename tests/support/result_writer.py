"""Writes results with their metrics as the product does, in transactions of which some are aborted."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any

from confluent_kafka import Producer
from support.topics import wait_settled

from lab.analytics.movements import METRICS, MINUTE_MS, RESULTS
from streamsocial_billing.domain.results import charge_result, payment_metric
from streamsocial_billing.settings import Settings

FIRST_MS = 1_764_600_000_000  # 2025-12-01T14:40:00Z
Key = tuple[int, str, str]
"""Minute, product, currency."""


class ResultWriter:
    """A seeded stream of outcomes over a few minutes, written in a thread until the `with` ends.

    charged, refunded  minor units of what was committed; `aborted` those of charges less refunds, by
                       currency, of what was not
    """

    def __init__(self, bootstrap: str, prefix: str, seed: int) -> None:
        self.charged: Counter[Key] = Counter()
        self.refunded: Counter[Key] = Counter()
        self.aborted: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._bootstrap, self._prefix = bootstrap, prefix
        self._number = 0
        self._stop = False
        self._failure: BaseException | None = None
        self._producer = Producer({"bootstrap.servers": bootstrap, "transactional.id": f"{prefix}writer"})
        self._producer.init_transactions(30)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def lines(self) -> list[tuple[int, str, str, int, int]]:
        """What a consumer must have counted, in the order of its table."""
        keys = sorted(self.charged.keys() | self.refunded.keys())
        return [(*key, self.charged[key], self.refunded[key]) for key in keys]

    def net(self) -> Counter[str]:
        """Revenue by currency."""
        net: Counter[str] = Counter()
        for _, _, currency, charged, refunded in self.lines():
            net[currency] += charged - refunded
        return net

    def __enter__(self) -> ResultWriter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop = True
        self._thread.join(60)
        self._producer.close()
        # its last transaction is answered before its end is in the logs
        settings = Settings(broker=f"kafka://{self._bootstrap}")
        wait_settled(settings, self._prefix + RESULTS, self._prefix + METRICS)
        if kind is None and self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            while not self._stop:
                self._transaction()
                time.sleep(0.01)  # a load, not a flood
        except BaseException as exc:
            self._failure = exc

    def _transaction(self) -> None:
        """A few outcomes; every third one comes to nothing, as when a worker dies before its commit."""
        self._producer.begin_transaction()
        moved = [self._outcome() for _ in range(self._random.randrange(1, 8))]
        aborted = self._random.random() < 1 / 3
        assert 0 == self._producer.flush(30)  # in the log, where read_uncommitted sees them already
        if aborted:
            self._producer.abort_transaction(30)
        else:
            self._producer.commit_transaction(30)
        for key, action, amount in filter(None, moved):
            if aborted:
                self.aborted[key[2]] += amount if action == "charge" else -amount
            else:
                (self.charged if action == "charge" else self.refunded)[key] += amount

    def _outcome(self) -> tuple[Key, str, int] | None:
        """Append one outcome to both topics; what it moved, if anything."""
        self._number += 1
        pick = self._random.choice
        user, product, currency = f"u{self._number % 7}", pick(("gift", "upgrade")), pick(("EUR", "JPY"))
        at, amount = FIRST_MS + self._random.randrange(3 * MINUTE_MS), self._random.randrange(1, 5000)
        action, replayed = pick(("charge",) * 4 + ("refund",)), self._random.random() < 0.1
        status = pick(("succeeded",) * 4 + ("declined", "unknown"))
        about: dict[str, Any] = {
            "payment_id": f"p{self._number}", "product": product, "action": action, "status": status,
            "replayed": replayed, "amount_minor": amount, "currency": currency, "gateway": "simulated",
        }  # fmt: skip
        result = charge_result(
            **about, user_id=user, reason=None, gateway_ref=None, attempt=1, requested_at=at, processed_at=at,
            source=None,
        )  # fmt: skip
        self._producer.produce(self._prefix + RESULTS, result, key=user)
        metric = payment_metric(**about, gateway_ms=3, at=at)
        self._producer.produce(self._prefix + METRICS, metric, key=product)
        moved = status == "succeeded" and not replayed
        return ((at - at % MINUTE_MS, product, currency), action, amount) if moved else None
