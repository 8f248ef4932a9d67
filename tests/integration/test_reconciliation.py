"""Reconciliation on a real Kafka: planted breaks are named, no others; what can be repaired is repaired."""

from __future__ import annotations

import asyncio
import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson
import pytest
from support.planted_books import AS_OF, PlantedBooks
from support.planted_output import gateways, write_files, write_topics
from support.system import CALM, Payments, System, payment
from support.topics import committed, wait_settled
from support.web_client import get

from processes import ROOT
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_calls import ChargeRequest, Succeeded
from streamsocial_billing.domain.payment_identity import gateway_key
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.gateways.configured import configured_gateways
from streamsocial_billing.gateways.simulated import SimulatedGateway
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.reconciliation.breaks import CLASSES
from streamsocial_billing.reconciliation.run import Done, Wish, reconcile
from streamsocial_billing.settings import BREAKS, GATEWAY_EVENTS, Settings

T = TypeVar("T")
PAYMENTS_PLANTED = 20_000
REPORTS = ("breaks.csv", "report.html", "summary.json")


@dataclass(frozen=True)
class Planted:
    """Planted books on a Kafka, with their settlement files."""

    settings: Settings
    books: PlantedBooks
    files: list[Path]

    def run(self, output: Path, *, dry_run: bool = True) -> Done:
        """Reconcile as of the planted moment."""
        wish = Wish(output=output, files=self.files, dry_run=dry_run, as_of=AS_OF)
        return reconcile(self.settings, gateways(self.books), wish)


def planted(broker: str, name: str, folder: Path, count: int, partitions: int = 8) -> Planted:
    """Books of `count` normal payments with every class of break, on topics of their own."""
    settings = Settings(
        app_id=name, topic_prefix=f"{name}-", broker=f"kafka://{broker}", partitions=partitions,
        gateway_url="http://127.0.0.1:1",
    )  # fmt: skip
    books = PlantedBooks()
    books.normal(count)
    books.plant()
    write_topics(books, settings)
    return Planted(settings, books, write_files(books, folder / "files"))


@pytest.fixture(scope="module")
def large(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Planted]:
    """The books that no test changes."""
    yield planted(broker, f"rec{time.time_ns()}", tmp_path_factory.mktemp("rec"), PAYMENTS_PLANTED)


def test_a_report_names_the_planted_breaks_and_no_others(large: Planted, tmp_path: Path) -> None:
    """Every class among 20 000 payments, in `breaks.csv` and in the counts of `summary.json`."""
    large.run(tmp_path)
    with (tmp_path / "breaks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    name = {"payout": "payout_id"}
    found = {
        (row["class"], row["gateway"], row[name.get(row["kind"], "gateway_ref")] or row["payment_id"])
        for row in rows
    }
    assert large.books.expected == found
    assert len(large.books.expected) == len(rows)
    assert set(CLASSES) == {row["class"] for row in rows}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {one: sum(row["class"] == one for row in rows) for one in CLASSES} == {
        one: summary["breaks"][one]["count"] for one in CLASSES
    }
    assert sum(row["open"] == "yes" for row in rows) == summary["open_breaks"]


def test_a_second_run_gives_the_same_bytes(large: Planted, tmp_path: Path) -> None:
    """Also from an empty folder, with the files in another order, each of them twice."""
    large.run(tmp_path / "one")
    first = {name: (tmp_path / "one" / name).read_bytes() for name in REPORTS}
    large.run(tmp_path / "one")
    again = Planted(large.settings, large.books, [*reversed(large.files), *large.files])
    again.run(tmp_path / "two")
    for folder in ("one", "two"):
        assert first == {name: (tmp_path / folder / name).read_bytes() for name in REPORTS}


def test_a_bad_file_changes_nothing(broker: str, unique_name: str, tmp_path: Path) -> None:
    """Exit code 2 with one line that names file and line; reports, kept lines, topics stay as they were.

    Also a good file that was given before the bad one is not kept.
    """
    made = planted(broker, unique_name, tmp_path, 60, partitions=2)
    out = tmp_path / "out"
    made.run(out, dry_run=False)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    topics = [made.settings.topic(name) for name in (BREAKS, GATEWAY_EVENTS)]
    places = [(topic, part) for topic in topics for part in range(2)]
    wait_settled(made.settings, *topics)
    ends = CommittedLog(made.settings).ends(places)
    whole, good = made.files[0].read_bytes(), tmp_path / "good.csv"
    good.write_bytes(whole.replace(b"po_simulated", b"po_another"))
    bad_files = {
        "truncated": (whole.rsplit(b"trailer", 1)[0], "without a trailer"),
        "doubled": (whole + whole, "is the file there twice?"),
        "summed": (re.sub(rb"(trailer,,\d+,,,,,)", rb"\g<1>9", whole, count=1), "the trailer sums"),
        "encoded": (whole.decode().encode("utf-16"), "not UTF-8"),
    }
    for name, (content, why) in bad_files.items():
        bad = tmp_path / f"{name}.csv"
        bad.write_bytes(content)
        ended = command(made.settings, "--output", out, "--settlement", good, "--settlement", bad)
        assert 2 == ended.returncode, ended.stderr
        assert 1 == len(ended.stderr.splitlines()), ended.stderr
        assert f"{name}.csv: line " in ended.stderr
        assert why in ended.stderr
        assert before == {path.name: path.read_bytes() for path in out.iterdir()}
    assert ends == CommittedLog(made.settings).ends(places)


def command(settings: Settings, *more: object) -> subprocess.CompletedProcess[str]:
    """`streamsocial-billing reconcile` as a process."""
    env = {
        "BILLING_APP_ID": settings.app_id, "BILLING_TOPIC_PREFIX": settings.topic_prefix,
        "BILLING_PARTITIONS": str(settings.partitions), "BILLING_BROKER": settings.broker,
        "BILLING_GATEWAY_URL": settings.simulator_url, "PYTHONPATH": str(ROOT), "PATH": "",
    }  # fmt: skip
    ours = str(Path(sys.executable).with_name("streamsocial-billing"))
    return subprocess.run(
        [ours, "reconcile", *map(str, more)], env=env, capture_output=True, text=True, timeout=150
    )


def test_the_exit_code_says_clean_or_broken(broker: str, unique_name: str, tmp_path: Path) -> None:
    """0: clean books, 1: an open break, 2: a gateway that cannot be listed. Quiet without a terminal."""
    with System(broker, tmp_path, unique_name, partitions=2, BILLING_MATCH_WINDOW_S=1) as system:
        charge_unseen(system, payment("bob", "lost-event"), told_as="changed")
        out = tmp_path / "out"
        write_topics(PlantedBooks(), system.settings)
        run_until(system, out, lambda _: missing(out) == {"changed"}, dry_run=True)
        broken = command(system.settings, "--output", out, "--as-of", "now")
        assert (1, "") == (broken.returncode, broken.stderr)
        assert "1 open break; 0 repairs sent" in broken.stdout
        clean = command(system.settings, "--output", out, "--since", "2100-01-01")
        assert (0, "") == (clean.returncode, clean.stderr)
        system.gateway.stop()
        away = command(system.settings, "--output", out)
        assert (2, 1) == (away.returncode, len(away.stderr.splitlines()))
        assert "the list could not be read" in away.stderr


def test_what_is_published_is_what_is_open(broker: str, unique_name: str, tmp_path: Path) -> None:
    """A break has a record under its id; a repeat writes nothing; what is gone gets a tombstone."""
    made = planted(broker, unique_name, tmp_path, 60, partitions=2)
    out = tmp_path / "out"
    first = made.run(out, dry_run=False)
    records = published(made.settings)
    assert first.summary.open == len(records) - 1
    assert first.summary.as_record() == orjson.loads(records[b"run"] or b"")
    assert {key for key in records if key != b"run"} == open_ids(out)
    with (out / "breaks.csv").open(newline="") as file:
        repaired = [row["id"] for row in csv.DictReader(file) if row["action"].startswith("repair:")]
    assert first.repairs == len(repaired) > 0
    assert {f"rec_{one}" for one in repaired} == {one["event_id"] for one in events(made.settings)}
    before = (out / "breaks.csv").read_bytes()
    assert 0 == made.run(out, dry_run=False).repairs
    assert before == (out / "breaks.csv").read_bytes()
    assert records == published(made.settings)
    for rows in made.books.listed.values():
        rows[:] = [row for row in rows if row.kind != "dispute"]
    made.run(out, dry_run=False)
    assert {key for key in published(made.settings) if key != b"run"} == open_ids(out)
    assert records.keys() - published(made.settings).keys()


def open_ids(out: Path) -> set[bytes]:
    """The ids of the open breaks of a report."""
    with (out / "breaks.csv").open(newline="") as file:
        return {row["id"].encode() for row in csv.DictReader(file) if row["open"] == "yes"}


def published(settings: Settings) -> dict[bytes, bytes]:
    """The records of `reconciliation-breaks` that are left after compaction."""
    left: dict[bytes, bytes] = {}
    for message in committed(settings, BREAKS):
        key, value = message.key() or b"", message.value()
        if value is None:
            left.pop(key)
        else:
            left[key] = value
    return left


def test_a_lost_reply_and_a_crash_are_repaired(broker: str, unique_name: str, tmp_path: Path) -> None:
    """The gateway charged, its reply was lost, the worker died: found, repaired, the next run is clean.

    The same for a charge under our reference whose event never came.
    """
    with System(broker, tmp_path, unique_name, partitions=2, BILLING_MATCH_WINDOW_S=1) as system:
        system.gateway.faults(drop_after_charge=1.0)
        system.start()
        system.submit([payment("ann", "lost-reply")])
        system.wait_answered()
        system.worker.kill()
        system.gateway.faults()
        charge_unseen(system, payment("bob", "lost-event"))
        out, wanted = tmp_path / "out", {"lost-reply", "lost-event"}
        run_until(system, out, lambda _: missing(out) == wanted)
        repairs = events(system.settings)  # of one run, or of two: the one charge is older than the other
        assert 2 == len(repairs)
        told = {one["payment_id"]: one for one in repairs}
        assert {one: "reconciliation" for one in wanted} == {name: one["via"] for name, one in told.items()}
        assert gateway_key(payment("ann", "lost-reply")) == told["lost-reply"]["ref"]
        system.start()
        last = run_until(system, out, lambda done: done.summary.clean)
        assert 0 == last.repairs
        assert 2 == last.summary.legs["movements"]
        assert system.results.wait(lambda: len(system.results_of("lost-reply")) == 2)
        assert [("unknown", False), ("succeeded", True)] == [
            (one["status"], one["resolves"]) for one in system.results_of("lost-reply")
        ]


def test_a_refund_that_failed_later_is_repaired(broker: str, unique_name: str, tmp_path: Path) -> None:
    """Nobody told of it: found in the list, repaired once; then the next refund works, all books agree."""
    with System(broker, tmp_path, unique_name, partitions=2, BILLING_MATCH_WINDOW_S=1, **CALM) as system:
        system.start()
        back = {"action": "refund", "refund_of": "paid"}
        for event in (payment("ann", "paid"), payment("ann", "back", **back)):
            system.submit([event])
            system.wait_answered()
        (refunded,) = system.results_of("back")
        system.gateway.post(f"/_refunds/{refunded['gateway_ref']}/fail", {"reason": "lost_or_stolen_card"})
        out = tmp_path / "out"
        first = run_until(system, out, lambda done: done.repairs > 0)
        last = run_until(system, out, lambda done: done.summary.clean)
        assert (1, 0) == (first.repairs, last.repairs)
        system.submit([payment("ann", "back-again", **back)])
        system.wait_answered()
        run_until(system, out, lambda done: not done.summary.found)
        system.check()

        def reasons() -> list[str]:
            return [one["reason"] for one in system.all_results() if one["origin"] == "external"]

        system.results.wait(lambda: bool(reasons()))
        assert (["refund_failed"], "succeeded") == (reasons(), system.results_of("back-again")[0]["status"])


def test_books_of_real_workers_are_clean(broker: str, unique_name: str, tmp_path: Path) -> None:
    """Charges, declines, replays, partial refunds, one of them refused: nothing is a break."""
    with System(broker, tmp_path, unique_name, partitions=2, BILLING_MATCH_WINDOW_S=1, **CALM) as system:
        system.start()
        charges = Payments(seed=5).take(60)
        system.submit(charges)
        paid = [one for one in charges if one.payment_method == "pm_card_visa"]
        refunds = [
            payment(one.user_id, f"re-{number}-{one.payment_id}", action="refund", refund_of=one.payment_id,
                    amount_minor=one.amount_minor // 2, currency=one.currency)
            for one in {one.payment_id: one for one in paid}.values() for number in range(2)
        ]  # fmt: skip
        too_much = payment(
            paid[0].user_id, "too-much", action="refund", refund_of=paid[0].payment_id,
            amount_minor=paid[0].amount_minor, currency=paid[0].currency,
        )  # fmt: skip
        system.submit([*refunds, too_much])
        system.wait_answered()
        done = run_until(system, tmp_path / "out", lambda done: not done.summary.found, dry_run=True)
        moved = [one for one in system.all_results() if one["status"] == "succeeded" and not one["replayed"]]
        sums = {(one.gateway, one.currency): one.amounts for one in done.summary.bridges}
        for (_, currency), amounts in sums.items():
            ours = [one for one in moved if one["currency"] == currency]
            charged = sum(one["amount_minor"] for one in ours if one["action"] == "charge")
            refunded = sum(one["amount_minor"] for one in ours if one["action"] == "refund")
            assert (charged, charged) == (amounts["our_gross"], amounts["gateway_gross"])
            assert (refunded, refunded) == (amounts["our_refunds"], amounts["gateway_refunds"])
        assert len(refunds) == sum(one["action"] == "refund" for one in moved)


def test_workers_tell_of_the_last_run(broker: str, unique_name: str, tmp_path: Path) -> None:
    """The view has its breaks, the metrics its counts; local state that is deleted changes no report."""
    with System(broker, tmp_path, unique_name, partitions=2, **CALM) as system:
        system.start()
        system.submit([payment("ann", f"pay-{number}") for number in range(20)])
        system.wait_answered()
        out = tmp_path / "out"
        assert 404 == get(system.worker.web_port, "/reconciliation").status
        assert once(system, out).summary.clean
        first = {name: (out / name).read_bytes() for name in REPORTS}
        charge_unseen(system, payment("bob", "lost-event"), told_as="changed")  # so nothing can repair it
        run_until(system, out, lambda _: missing(out) == {"changed"}, dry_run=True)
        once(system, out, dry_run=False)
        port = system.worker.web_port
        shown = wait_for(lambda: get(port, "/reconciliation"), lambda got: got.status == 200)
        assert {"changed"} == {one["payment_id"] for one in shown.json()["breaks"]}
        told = b'billing_reconciliation_open_breaks{class="missing_internal"} 1.0'
        wait_for(lambda: get(port, "/metrics").body, lambda got: told in got)
        assert 401 == get(port, "/reconciliation", X_Forwarded_For="10.0.0.1").status
        system.stop_workers()
        system.worker.forget_local_state()
        system.start()
        assert first["breaks.csv"] != (out / "breaks.csv").read_bytes()
        before = {name: (out / name).read_bytes() for name in REPORTS}
        again = reconcile_as(system, tmp_path / "again", int(json.loads(before["summary.json"])["as_of"]))
        assert not again.summary.clean
        assert before["breaks.csv"] == (tmp_path / "again" / "breaks.csv").read_bytes()
        assert before["report.html"] == (tmp_path / "again" / "report.html").read_bytes()


def charge_unseen(system: System, event: PaymentEvent, told_as: str | None = None) -> None:
    """Charge at the gateway what is on no topic; `told_as`: another payment_id in the metadata."""

    async def charge() -> None:
        gateway = SimulatedGateway(system.gateway.url)
        await gateway.start()
        request = ChargeRequest(
            gateway_key(event), event.user_id, told_as or event.payment_id, "f", event.amount_minor,
            event.currency, event.payment_method,
        )  # fmt: skip
        assert isinstance(await gateway.charge(request, timeout_s=60), Succeeded)
        await gateway.close()

    asyncio.run(charge())


def once(system: System, out: Path, *, dry_run: bool = True) -> Done:
    """One run, as of now."""
    return reconcile_as(system, out, now_ms(), dry_run=dry_run)


def reconcile_as(system: System, out: Path, as_of: int, *, dry_run: bool = True) -> Done:
    """One run, as of a moment."""
    wish = Wish(output=out, dry_run=dry_run, as_of=as_of)
    return reconcile(system.settings, configured_gateways(system.settings), wish)


def run_until(
    system: System, out: Path, enough: Callable[[Done], bool], *, dry_run: bool = False
) -> Done:
    """Run again and again, until what is young has become old enough to be a break, or is repaired."""
    return wait_for(lambda: once(system, out, dry_run=dry_run), enough)


def wait_for(look: Callable[[], T], enough: Callable[[T], bool], within_s: float = 120) -> T:
    """Look until it is enough."""
    until = time.monotonic() + within_s
    while True:
        seen = look()
        if enough(seen):
            return seen
        assert time.monotonic() < until, seen
        time.sleep(0.1)


def missing(out: Path) -> set[str]:
    """The payments that a report calls missing_internal."""
    with (out / "breaks.csv").open(newline="") as file:
        return {row["payment_id"] for row in csv.DictReader(file) if row["class"] == "missing_internal"}


def events(settings: Settings) -> list[dict[str, Any]]:
    """What is on `gateway-events`."""
    return [orjson.loads(message.value() or b"") for message in committed(settings, GATEWAY_EVENTS)]
