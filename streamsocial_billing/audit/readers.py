"""Fills the books from Kafka, from the gateway's list."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

import orjson
from confluent_kafka import Message

from streamsocial_billing.audit.books import (
    Books,
    LedgerCharge,
    LedgerRefund,
    add_dead_letter,
    add_event,
    add_metric,
    add_result,
    fold_entry,
    fold_state,
    ledger_charge,
    ledger_refund,
)
from streamsocial_billing.kafka.committed import CommittedLog, KafkaProblem, Place
from streamsocial_billing.settings import DEAD_LETTERS, METRICS, PAYMENTS, RESULTS, SOURCES, Settings

PAGE_WITHIN_S: Final = 10.0


class AuditError(KafkaProblem):
    """Raised when one side of the books, Kafka's or the gateway's, cannot be read: one line, what to do."""


class LedgerUnread(AuditError):
    """Raised when the gateway's ledger cannot be read."""


class KafkaSide:
    """The Kafka side of the books, read on from where the last reading ended."""

    def __init__(self, settings: Settings, books: Books) -> None:
        self._settings = settings
        self._books = books
        self._log = CommittedLog(settings)
        self._payments = settings.topic(PAYMENTS)
        self._add: dict[str, Callable[[Message], None]] = {
            self._payments: self._event,
            settings.topic(RESULTS): self._result,
            settings.topic(METRICS): lambda m: add_metric(books, _place(m), m.value()),
            settings.topic(DEAD_LETTERS): lambda m: add_dead_letter(books, self._payments, _headers(m)),
            settings.changelog("payments"): lambda m: fold_entry(books, _place(m), m.key(), m.value()),
            settings.changelog("charges"): lambda m: fold_state(books, _place(m), m.key(), m.value()),
        }
        try:
            counts = self._log.partitions([*self._add, *map(settings.topic, SOURCES)])
        except KafkaProblem as error:
            raise AuditError(str(error)) from None
        self._places = [(topic, partition) for topic in counts for partition in range(counts[topic])]
        self._read_to: dict[Place, int] = {}
        self.behind: dict[str, int] = {}
        """By source topic, the offsets that the workers had not handled when it was last read."""

    def read_on(self) -> int:
        """Read everything committed until now; returns the workers' lag, all partitions together.

        The lag is asked before anything is read: a result commits together with its event's offset, so where
        the lag of an offset is gone its results are read as well.
        """
        try:
            before = self._ends(set(map(self._settings.topic, SOURCES)))
            committed = self._log.committed(self._settings.app_id, before)
            self.behind = {
                topic: sum(max(0, end - committed[t, p]) for (t, p), (_, end) in before.items() if t == topic)
                for topic in {topic for topic, _ in before}
            }
            handled_to = {p: offset for (topic, p), offset in committed.items() if topic == self._payments}
            now = self._ends(self._add.keys())
            arrived = [place for place, ends in before.items() if place in now and now[place][1] > ends[1]]
            self._read(now)
            self._books.handled_to = handled_to
        except KafkaProblem as error:
            raise AuditError(str(error)) from None
        return sum(self.behind.values()) + len(arrived)

    def _ends(self, topics: Any) -> dict[Place, tuple[int, int]]:
        return self._log.ends([place for place in self._places if place[0] in topics])

    def _read(self, ends: Mapping[Place, tuple[int, int]]) -> None:
        self._books.log_start.update({p: ends[t, p][0] for t, p in ends if t == self._payments})
        span = {place: (self._read_to.get(place, start), end) for place, (start, end) in ends.items()}
        for message in self._log.read(span):
            self._add[message.topic() or ""](message)
        self._read_to.update({place: end for place, (_, end) in span.items()})

    def _event(self, message: Message) -> None:
        add_event(self._books, (message.partition() or 0, message.offset() or 0), message.value())

    def _result(self, message: Message) -> None:
        add_result(self._books, self._payments, _place(message), message.value())


def _place(message: Message) -> str:
    return f"{message.topic()}-{message.partition()} offset {message.offset()}"


def _headers(message: Message) -> dict[str, bytes]:
    pairs: Any = message.headers() or []
    return {name: value for name, value in pairs if isinstance(value, bytes)}


def read_ledger(url: str, page: int) -> tuple[list[LedgerCharge], list[LedgerRefund]]:
    """Every charge, every refund of the simulated gateway, `page` (1 to 1000) at a time, newest first.

    Refunds first, so that each one's charge is there. Pages hang together by the last id, so what is made
    meanwhile shifts none. Raises LedgerUnread.
    """
    opener = build_opener(ProxyHandler({}))  # a proxy of the environment is not on the way to the gateway
    try:
        refunds = [ledger_refund(data) for data in _rows(opener, f"{url}/v1/refunds", page)]
        return [ledger_charge(data) for data in _rows(opener, f"{url}/v1/charges", page)], refunds
    except HTTPError as error:
        raise LedgerUnread(f"the gateway at {url} answers {error.code} to a list of what it moved") from None
    except (URLError, OSError) as error:
        why = getattr(error, "reason", None) or error
        raise LedgerUnread(
            f"the gateway at {url} does not answer ({why}): start it (streamsocial-billing gateway) or set "
            "BILLING_GATEWAY_URL"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise LedgerUnread(f"what answers at {url} is not the gateway: set BILLING_GATEWAY_URL") from None


def _rows(opener: Any, url: str, page: int) -> Iterator[dict[str, Any]]:
    after = ""
    while True:
        with opener.open(f"{url}?limit={page}{after}", timeout=PAGE_WITHIN_S) as reply:
            body = orjson.loads(reply.read())
        yield from body["data"]
        if not body["has_more"]:
            return
        after = f"&starting_after={quote(body['data'][-1]['id'])}"
