"""Makes payments from a seed, writes each into the intake log before it is sent, sends them.

`python -m torture.generator FOLDER SEED PAYMENTS`: the log is FOLDER/intake.jsonl. How far it may go stands
in FOLDER/intake.allow, a number of payments. A file FOLDER/intake.amid makes the next transaction stop before
its commit, for somebody to kill it there. Started again, it goes on where its log ends: what has no outcome,
or none that is sure, is sent again first, as any client would.
"""

from __future__ import annotations

import base64
import json
import os
import random
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.results import requested_metric
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.intake.identity import IntakeError
from streamsocial_billing.intake.producer import IntakeOutcomeUnknown, PaymentProducer
from streamsocial_billing.settings import METRICS, PAYMENTS, Settings

RESENT: Final = 0.10
CHANGED: Final = 0.03
MALFORMED: Final = 0.02
"""Shares of all events: the same again, the same payment with another amount, no payment at all."""
HOT_USERS: Final = 4
HOT_SHARE: Final = 0.4
USERS: Final = 60
DECLINED: Final = 0.1
RECENT: Final = 50
"""Half of the repeats are of one of so many last payments: it may still be under way."""
LARGEST_CHUNK: Final = 120
HUGE_BYTES: Final = 900_000
LOOK_EVERY_S: Final = 0.05
AMID: Final = "amid its transaction"


@dataclass(frozen=True, slots=True)
class Item:
    """One event as it is sent; `number` counts what the seed makes, `payment` is None for no payment."""

    number: int
    kind: str
    payment: dict[str, Any] | None
    key: bytes | None
    value: bytes


class Payments:
    """What a seed makes: the same items in the same order, however often it is asked."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a repeatable stream, not a secret
        self._made: list[dict[str, Any]] = []
        self._recent: deque[dict[str, Any]] = deque(maxlen=RECENT)
        self._number = -1

    @property
    def made(self) -> int:
        """How many different payments there are so far."""
        return len(self._made)

    def next(self) -> Item:
        """The next event."""
        self._number += 1
        drawn = self._random.random()
        if drawn < MALFORMED:
            return malformed(self._random, self._number)
        if self._made and drawn < MALFORMED + CHANGED:
            again = self._again()
            return item(self._number, "changed", {**again, "amount_minor": again["amount_minor"] + 1})
        if self._made and drawn < MALFORMED + CHANGED + RESENT:
            return item(self._number, "resent", self._again())
        return item(self._number, "new", self._new())

    def _again(self) -> dict[str, Any]:
        return self._random.choice(self._recent if self._random.random() < 0.5 else self._made)

    def _new(self) -> dict[str, Any]:
        dice = self._random
        user = dice.randrange(HOT_USERS) if dice.random() < HOT_SHARE else dice.randrange(HOT_USERS, USERS)
        payment = {
            "payment_id": f"pay-{len(self._made)}", "user_id": f"user-{user}",
            "product": dice.choice(("subscription", "upgrade", "gift")),
            "amount_minor": dice.randrange(100, 10_000), "currency": dice.choice(("EUR", "USD", "JPY")),
            "payment_method": "pm_card_declined" if dice.random() < DECLINED else "pm_card_visa",
        }  # fmt: skip
        self._made.append(payment)
        self._recent.append(payment)
        return payment


def item(number: int, kind: str, payment: dict[str, Any]) -> Item:
    """A well-formed event of now."""
    event = PaymentEvent.from_mapping(
        payment, now_ms=now_ms(), default_gateway="simulated"
    )
    return Item(number, kind, payment, event.user_id.encode(), event.to_bytes())


def malformed(dice: random.Random, number: int) -> Item:
    """A record that no worker can ever make a payment of."""
    user = f"user-{dice.randrange(USERS)}"
    fields = {
        "payment_id": f"bad-{number}", "user_id": user, "product": "gift", "amount_minor": 5,
        "currency": "EUR", "payment_method": "pm_card_visa", "gateway": "simulated",
        "requested_at": now_ms(),
    }  # fmt: skip
    wrong: list[dict[str, Any]] = [
        {"amount_minor": -5}, {"amount_minor": "5"}, {"currency": "XXX"}, {"product": None},
        {"gateway": "nobody"}, {"payment_id": "a b"}, {"user_id": f"{user}x"},
        {"payment_method": "4242424242424242"},
    ]  # fmt: skip
    drawn = dice.randrange(len(wrong) + 4)
    if drawn < len(wrong):
        value = json.dumps({**fields, **wrong[drawn]}).encode()
    else:
        value = [b"", b"\xff\xfe no json", b"[1, 2]", b"x" * HUGE_BYTES][drawn - len(wrong)]
    return Item(number, "malformed", None, user.encode() if dice.random() < 0.8 else None, value)


class IntakeLog:
    """The intake log: one line for each event before it is sent, one for the end of each transaction."""

    def __init__(self, path: Path) -> None:
        self.lines = 0
        self._file = path.open("ab")

    def write(self, items: Sequence[Item]) -> tuple[int, int]:
        """Put the events on disk; the numbers of their first and last line."""
        first = self.lines
        self._put([self._line(first + place, one) for place, one in enumerate(items)])
        self.lines += len(items)
        return first, self.lines - 1

    def close(self) -> None:
        """No more lines."""
        self._file.close()

    def outcome(self, span: tuple[int, int], outcome: str) -> None:
        """How the transaction of these events ended."""
        self._put([{"n": list(span), "outcome": outcome, "at": time.time()}])

    def _line(self, line: int, one: Item) -> dict[str, Any]:
        about = one.payment or {}
        names = ("user_id", "payment_id", "amount_minor", "currency")
        return {
            "n": line, "i": one.number, "kind": one.kind, **{name: about.get(name) for name in names},
            "key": one.key.decode() if one.key is not None else None,
            "value_b64": base64.b64encode(one.value).decode(), "at": time.time(),
        }  # fmt: skip

    def _put(self, lines: list[dict[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        self._file.flush()
        os.fsync(self._file.fileno())


def read_log(path: Path) -> tuple[int, int, list[Item]]:
    """What an earlier process left: lines written, items of the seed taken, events that may be missing.

    A half-written last line is cut off: its event was never sent.
    """
    if not path.exists():
        return 0, 0, []
    data = path.read_bytes()
    os.truncate(path, data.rfind(b"\n") + 1)
    waiting: dict[int, Item] = {}
    lines = taken = 0
    for text in data[: data.rfind(b"\n") + 1].splitlines():
        line = json.loads(text)
        if "outcome" in line:
            if line["outcome"] == "committed":
                for number in range(line["n"][0], line["n"][1] + 1):
                    waiting.pop(number, None)
            continue
        lines, taken = line["n"] + 1, max(taken, line["i"] + 1)
        again = item_of(line)
        waiting = {number: one for number, one in waiting.items() if one.number != again.number}
        waiting[line["n"]] = again
    return lines, taken, list(waiting.values())


def item_of(line: dict[str, Any]) -> Item:
    """The event of a line, as it is sent again."""
    kind = "resent" if line["kind"] == "new" else line["kind"]
    payment = {name: line[name] for name in ("user_id", "payment_id", "amount_minor", "currency")}
    key = line["key"].encode() if line["key"] is not None else None
    return Item(
        line["i"], kind, None if kind == "malformed" else payment, key, base64.b64decode(line["value_b64"])
    )


class TornProducer(PaymentProducer):
    """The product's own intake; it sends what is no payment too, stops amid a transaction on demand."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self._amid = folder / "intake.amid"
        self._payments, self._metrics = settings.topic(PAYMENTS), settings.topic(METRICS)
        super().__init__(settings, folder / "intake")

    def _records(self, items: Sequence[Any]) -> list[Any]:
        at_ms = now_ms()
        records: list[Any] = []
        for one in items:
            records.append((self._payments, one.key, one.value))
            if one.payment is not None:
                event = PaymentEvent.from_bytes(one.value, key=one.key, now_ms=at_ms)
                metric = requested_metric(event, at_ms)
                records.append((self._metrics, event.product.encode(), metric))
        return records

    def _before_commit(self) -> None:
        if self._amid.exists():
            self._amid.unlink()
            print(AMID, flush=True)
            time.sleep(60)  # somebody kills us here


class Generator:
    """Sends what the seed makes as far as it is allowed, and what may be missing before anything else."""

    def __init__(self, settings: Settings, folder: Path, seed: int, payments: int) -> None:
        self._settings = settings
        self._folder = folder
        self._stream = Payments(seed)
        self._wanted = payments
        self._dice = random.Random()  # noqa: S311 - how much goes into one transaction
        lines, taken, self._again = read_log(folder / "intake.jsonl")
        for _ in range(taken):
            self._stream.next()
        self._log = IntakeLog(folder / "intake.jsonl")
        self._log.lines = lines
        self._producer: TornProducer | None = None

    def run(self) -> None:
        """Until every payment is appended."""
        while self._again or self._stream.made < self._wanted:
            if not self.run_once():
                time.sleep(LOOK_EVERY_S)
        if self._producer is not None:
            self._producer.close()
        self._log.close()

    def run_once(self) -> bool:
        """Send one chunk; False if nothing may be sent now."""
        chunk = self._again or self._next_chunk()
        if not chunk:
            return False
        if self._producer is None:
            self._producer = self._open()
        if self._producer is None:
            self._again = chunk
            return False
        span = self._log.write(chunk)
        outcome = self._submit(self._producer, chunk)
        self._log.outcome(span, outcome)
        self._again = [] if outcome == "committed" else [_again(one) for one in chunk]
        return outcome == "committed"

    def _next_chunk(self) -> list[Item]:
        allowed = min(self._wanted, _allowed(self._folder / "intake.allow"))
        most = self._dice.choice((1, 5, 25, LARGEST_CHUNK))
        chunk: list[Item] = []
        while self._stream.made < allowed and len(chunk) < most:
            chunk.append(self._stream.next())
        return chunk

    def _submit(self, producer: TornProducer, chunk: list[Item]) -> str:
        try:
            producer.submit(chunk)  # type: ignore[arg-type]
        except IntakeOutcomeUnknown as error:
            print(f"outcome unknown: {error}", flush=True)
            return "unknown"
        except IntakeError as error:
            print(f"nothing appended: {error}", flush=True)
            return "aborted"
        return "committed"

    def _open(self) -> TornProducer | None:
        try:
            return TornProducer(self._settings, self._folder)
        except IntakeError as error:
            print(f"no producer yet: {error}", flush=True)
            return None


def _again(one: Item) -> Item:
    return Item(one.number, "resent" if one.kind == "new" else one.kind, one.payment, one.key, one.value)


def _allowed(path: Path) -> int:
    """The number in the file; somebody may be about to replace it."""
    try:
        return int(path.read_text() or 0)
    except (OSError, ValueError):
        return 0


if __name__ == "__main__":
    Generator(
        Settings.from_environment(os.environ), Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    ).run()
