"""Writes planted books out: topics on a real Kafka, settlement files of each format, gateways with lists."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import orjson
from confluent_kafka.admin import NewTopic
from support.listed_gateway import ListedGateway
from support.planted_books import AS_OF, CURRENCIES, HOUR, PlantedBooks
from support.producers import idempotent_producer

from faust_exactly_once.cluster import Cluster
from streamsocial_billing.domain.money import EXPONENTS
from streamsocial_billing.kafka.topics import create_topics
from streamsocial_billing.reconciliation.settlement.simple import HEADER
from streamsocial_billing.settings import PAYMENTS, RESULTS, Settings


def gateways(books: PlantedBooks) -> dict[str, ListedGateway]:
    """By name."""
    return {name: ListedGateway(name, rows) for name, rows in books.listed.items()}


def write_files(books: PlantedBooks, folder: Path) -> list[Path]:
    """The settlement files, one of each format."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "simple.csv", folder / "stripe.csv", folder / "STL-20260306.01.009.CSV"]
    for path, rows in zip(paths, (_simple(books), _stripe(books), _paypal(books)), strict=True):
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    return paths


def _simple(books: PlantedBooks) -> Iterable[Iterable[object]]:
    yield HEADER
    counts, sums = Counter[str](), Counter[str]()
    for one in books.settled["simulated"]:
        counts[one.currency] += 1
        sums[one.currency] += one.gross - one.fee
        yield (one.kind, "simulated", one.gateway_ref, one.charge_ref, one.ref,
               major(one.gross, one.currency), major(one.fee, one.currency),
               major(one.gross - one.fee, one.currency), one.currency,
               one.payout, time_text(one.at))  # fmt: skip
    for (gateway, payout, currency), net in books.paid.items():
        if gateway == "simulated":
            paid = major(net, currency)
            yield "payout", gateway, "", "", "", paid, "0", paid, currency, payout, time_text(AS_OF - HOUR)
    for currency in sorted(counts):
        yield ("trailer", "", counts[currency], "", "", "", "", major(sums[currency], currency), currency,
               "", "")  # fmt: skip


def _stripe(books: PlantedBooks) -> Iterable[Iterable[object]]:
    yield ("automatic_payout_id", "balance_transaction_id", "created_utc", "currency", "gross", "fee", "net",
           "reporting_category", "source_id", "charge_id", "payment_metadata[ref]")  # fmt: skip
    number = 0
    for one in books.settled["stripe"]:
        number += 1
        back = one.kind == "dispute" and one.gross > 0
        yield (one.payout, f"txn_{number}", time_text(one.at), one.currency.lower(),
               major(one.gross, one.currency), major(one.fee, one.currency),
               major(one.gross - one.fee, one.currency), "dispute_reversal" if back else one.kind,
               one.gateway_ref, one.charge_ref or one.gateway_ref, one.ref)  # fmt: skip
    for (gateway, payout, currency), net in books.paid.items():
        if gateway == "stripe":
            number += 1
            paid = major(-net, currency)
            yield (payout, f"txn_{number}", time_text(AS_OF - HOUR), currency.lower(), paid, "0", paid,
                   "payout", payout, "", "")  # fmt: skip


def _paypal(books: PlantedBooks) -> Iterable[Iterable[object]]:
    titles = ("CH", "Transaction ID", "Invoice ID", "PayPal Reference ID", "PayPal Reference ID Type",
              "Transaction Event Code", "Transaction Initiation Date", "Transaction Completion Date",
              "Transaction  Debit or Credit", "Gross Transaction Amount", "Gross Transaction Currency",
              "Fee Debit or Credit", "Fee Amount", "Fee Currency", "Custom Field")  # fmt: skip
    yield "RH", "2026/03/06 23:59:59 +0000", "A", "MERCHANT", "009"
    yield "FH", "1"
    yield "SH", "2026/01/01 00:00:00 +0000", "2026/03/06 23:59:59 +0000", "MERCHANT", ""
    yield titles
    sums: Counter[tuple[str, int]] = Counter()
    for one in books.settled["paypal"]:
        code = {"charge": "T0006", "refund": "T1107"}.get(one.kind, "T1201" if one.gross < 0 else "T1202")
        when = datetime.fromtimestamp(one.at / 1000, UTC).strftime("%Y/%m/%d %H:%M:%S +0000")
        gross, fee = (hundredths(amount, one.currency) for amount in (abs(one.gross), one.fee))
        sums[one.currency, 1 if one.gross < 0 else 0] += gross
        sums[one.currency, 3] += fee
        yield ("SB", one.gateway_ref, one.ref, one.charge_ref, "TXN" if one.charge_ref else "", code, when,
               when, "DR" if one.gross < 0 else "CR", gross, one.currency, "DR", fee,
               one.currency, "")  # fmt: skip
    totals = [(code, *(sums[code, place] for place in range(4))) for code in CURRENCIES]
    count = len(books.settled["paypal"])
    for kind in ("S", "R"):
        for total in totals:
            yield f"{kind}F", *total
        yield f"{kind}C", count
    yield "FF", count


def write_topics(books: PlantedBooks, settings: Settings) -> None:
    """Our books, on a real Kafka."""
    cluster = Cluster(settings.client_config(), 15)
    create_topics(settings, cluster)
    changelogs = [settings.changelog(name) for name in ("payments", "open_payments")]
    compact = {"cleanup.policy": "compact"}
    cluster.create([NewTopic(name, settings.partitions, 1, config=compact) for name in changelogs])
    producer = idempotent_producer(settings.bootstrap, {"linger.ms": 20})

    def send(topic: str, key: str, value: bytes, at: int, *by: str) -> None:
        while True:
            try:
                producer.produce(topic, value, key.encode(), timestamp=at)
                return
            except BufferError:
                producer.poll(0.1)

    for user, value, at in books.results:
        send(settings.topic(RESULTS), user, value, at)
    for user, value in books.unhandled:
        send(settings.topic(PAYMENTS), user, value, AS_OF)
    for key, value in books.observed:
        send(changelogs[0], key, value, AS_OF)
    for key in books.parked:
        send(changelogs[1], key, orjson.dumps({"status": "parked", "next_try_at": None}), AS_OF)
    assert 0 == producer.flush(60)
    producer.close()


def major(amount: int, currency: str) -> str:
    """Minor units as the files have them."""
    return str(Decimal(amount).scaleb(-EXPONENTS[currency]))


def hundredths(amount: int, currency: str) -> int:
    """Minor units as PayPal's settlement report has them: two implied digits in every currency."""
    return int(Decimal(amount).scaleb(2 - EXPONENTS[currency]))


def time_text(at: int) -> str:
    """A moment in UTC."""
    return datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
