"""The main job once, with SIGKILLs in the middle, with the books at the end."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Mapping
from contextlib import closing
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from showcase.errors import ShowcaseFailed
from showcase.feed import Feed
from showcase.folder import Folder
from showcase.harm import Harm, Survived
from showcase.progress import Progress, Tally
from showcase.sample import refunds_among, sample_payments
from showcase.system import System, ask
from streamsocial_billing.audit.checks import Problem
from streamsocial_billing.audit.disk import tables_on_disk
from streamsocial_billing.audit.report import AuditReport
from streamsocial_billing.audit.run import run_audit
from streamsocial_billing.audit.showing import render
from streamsocial_billing.domain.english import counted
from streamsocial_billing.kafka.committed import CommittedLog
from streamsocial_billing.settings import RESULTS

DEFAULT_PAYMENTS: Final = 2_000
MIN_PAYMENTS: Final = 20
MAX_PAYMENTS: Final = 1_000_000
GATEWAY_TAKES_MS: Final = 50
"""A gateway is not next door: calls are under way when the SIGKILL comes."""
QUIET_LIMIT_S: Final = 60.0
"""How long no result may come while an event has none."""
OPEN_QUIET_LIMIT_S: Final = 50.0
"""How long no open payment may be settled; an unknown one is tried again after 5 s, then after 30 s."""
LOOK_EVERY_S: Final = 0.5
TICK_S: Final = 0.02
AUDIT_WAITS_S: Final = 30.0
STILL_OPEN: Final = 3
"""Exit code where nothing is wrong, yet payments are open: as `audit --require-settled` has it."""
OPEN: Final = "payments still open"
QUICK_FAILOVER: Final = {"BILLING_SESSION_TIMEOUT_S": "6", "BILLING_GATEWAY_DEADLINE_S": "5"}


class Check(NamedTuple):
    """One line of the verdict."""

    name: str
    expected: int
    found: int

    def mark(self, open_payments: int) -> Text:
        """`ok`, `open` where open payments may be what is missing, else `WRONG`."""
        missing = self.expected - self.found if self.name != OPEN else self.found
        if missing == 0:
            return Text("ok", "green")
        return Text("open", "yellow") if 0 < missing <= open_payments else Text("WRONG", "bold red")


def run(folder: Folder, environ: Mapping[str, str], console: Console) -> int:
    """Do it all; the exit code: 0 only if every payment was charged exactly once, every check holds.

    STILL_OPEN if all that is missing are payments that are open in the end; 1 for anything else.
    """
    started = time.monotonic()
    payments = wanted_payments(environ)
    system = System(folder, environ, own_settings(environ), lambda text: console.print(text, highlight=False))
    if system.kafka:
        system.check_kafka()
    folder.empty()
    try:
        system.start()
        ask(f"{system.gateway_url}/_faults", within_s=5, body=b'{"latency_ms": %d}' % GATEWAY_TAKES_MS)
        survived, settled = _stream(system, sample_payments(payments), console)
        console.print("audit: Kafka, tables, the gateway's ledger", highlight=False)
        # what stays open has been waited for
        report = run_audit(system.settings, wait_s=AUDIT_WAITS_S if settled else 0)
        calls = (ask(f"{system.gateway_url}/_stats", within_s=5) or {}).get("calls", 0)
        codes = system.stop_workers()
        disk = tables_on_disk(system.datadirs, system.settings)
    finally:
        system.close()
    console.print(render(report), soft_wrap=True)  # a line of the report is one line, however long
    checks = verdict(payments, report, survived, codes, disk)
    moved = sum(report.gateway.values()) + sum(report.refunds.values())
    _print_verdict(console, checks, disk, report.open)
    if calls > moved:
        text = f"The gateway got {calls:,} calls for {moved:,} charges and refunds: the others were repeats."
        console.print(text, highlight=False, soft_wrap=True)
    return _conclude(
        console=console, system=system, payments=payments, checks=checks, report=report,
        seconds=time.monotonic() - started,
    )  # fmt: skip


def wanted_payments(environ: Mapping[str, str]) -> int:
    """How many payments the variable PAYMENTS asks for; raises ShowcaseFailed."""
    value = environ.get("PAYMENTS") or str(DEFAULT_PAYMENTS)
    if not re.fullmatch("[0-9]{1,9}", value) or not MIN_PAYMENTS <= int(value) <= MAX_PAYMENTS:
        allowed = f"use a whole number from {MIN_PAYMENTS} to {MAX_PAYMENTS}"
        raise ShowcaseFailed(f"PAYMENTS={value!r} is not allowed: {allowed}")
    return int(value)


def own_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What a run sets for itself: names of its own on a broker that serves others, a quick failover."""
    mark = secrets.token_hex(4)
    names = {"BILLING_APP_ID": "streamsocial-billing", "BILLING_TOPIC_PREFIX": ""}
    if environ.get("KAFKA"):
        names = {"BILLING_APP_ID": f"streamsocial-billing-run-{mark}", "BILLING_TOPIC_PREFIX": f"run-{mark}-"}
    return names | ({} if QUICK_FAILOVER.keys() & environ.keys() else QUICK_FAILOVER)


def _stream(system: System, lines: list[bytes], console: Console) -> tuple[Survived, bool]:
    """Send everything, do the harm meanwhile, wait for all results; False where some stay open."""
    tally = Tally(len(lines))
    topic = system.settings.topic(RESULTS)
    looked = quiet_since = time.monotonic()
    ticked = 0.0
    with (
        closing(CommittedLog(system.settings).follow(topic)) as results,
        Feed(lines, system.environ, system.folder) as feed,
        Progress(console, tally, system) as progress,
    ):
        harm = Harm(system, tally, progress)
        for message in results:
            now = time.monotonic()
            if message is not None:
                tally.add(message.value() or b"{}")
                quiet_since = now
            if message is not None and now - ticked < TICK_S and not tally.done:
                continue
            ticked = now
            feed.push()
            tally.sent = feed.sent
            harm.look()
            system.watch()
            if now - looked > LOOK_EVERY_S:
                system.look()
                looked = now
            progress.look()
            if tally.done:
                break
            if tally.answered and now - quiet_since > OPEN_QUIET_LIMIT_S:
                progress.say(f"no longer waited for: {counted(len(tally.open), 'open payment')}")
                break
            if now - quiet_since > QUIET_LIMIT_S:
                there = f"{tally.results:,} of {tally.events:,} are there (logs: {system.folder.logs})"
                raise ShowcaseFailed(f"no result for {QUIET_LIMIT_S:.0f} s, {there}")
        if feed.finished() != 0:
            feed.push()  # says why
        survived = harm.over()
        system.wait_complete()
    return survived, tally.done


def verdict(
    payments: int, report: AuditReport, survived: Survived, codes: Mapping[str, int], disk: list[Problem]
) -> list[Check]:
    """Everything that must hold, with what was found."""
    twice, refunds = payments // 10, refunds_among(payments)
    events, wanted = payments + twice + refunds, payments + refunds
    answered = sum(first + replayed for first, replayed, _ in report.results.values())
    final = report.results.get("succeeded", (0, 0, 0))
    settled = sum(resolving for _, _, resolving in report.results.values())
    several = survived.brokers > 1
    return [
        Check("payments sent, refunds of some among them", wanted, report.payments),
        Check("  of them twice", twice, report.resent),
        Check("charges at the gateway, one for each payment", payments, report.gateway.get("succeeded", 0)),
        Check("  other charges there", 0, sum(report.gateway.values()) - report.gateway.get("succeeded", 0)),
        Check("refunds at the gateway, one for each refund", refunds, report.refunds.get("succeeded", 0)),
        Check("  other refunds there", 0, sum(report.refunds.values()) - report.refunds.get("succeeded", 0)),
        Check("first results that say succeeded, now or later", wanted, final[0] + final[2]),
        Check("results, one for each event", events, answered),
        Check("metrics, one for each result", answered + settled, report.metrics),
        Check("intake metrics, one for each event", events, report.requested),
        Check("SIGKILLs survived", survived.kills_wanted, survived.kills),
        *([Check("brokers with every record again", survived.brokers, survived.in_sync)] if several else []),
        Check("workers that stopped in order", len(codes), sum(code == 0 for code in codes.values())),
        Check(OPEN, 0, report.open),
        Check("differences between results, tables, the gateway's ledger", 0, report.problem_total),
        Check("differences between RocksDB and changelogs", 0, len(disk)),
    ]


def _print_verdict(console: Console, checks: list[Check], disk: list[Problem], open_payments: int) -> None:
    table = Table("check", title="the run", title_style="bold")
    for heading in ("expected", "found", ""):
        table.add_column(heading, justify="right")
    for check in checks:
        table.add_row(check.name, f"{check.expected:,}", f"{check.found:,}", check.mark(open_payments))
    console.print(table)
    for problem in disk:
        console.print(f"  {problem}", style="red", highlight=False)


def _conclude(
    console: Console, system: System, payments: int, checks: list[Check], report: AuditReport, seconds: float
) -> int:
    if system.kafka:
        prefix = system.settings.topic_prefix
        left = f"left on {system.kafka}: topics {prefix}*, {system.settings.app_id}-*"
        console.print(left, highlight=False)
    failed = [check for check in checks if check.expected != check.found]
    if report.ok and failed and only_open(failed, report):
        left = counted(report.open, "payment is open", "payments are open")
        text = f"nothing differs, but {left}, see above; logs: {system.folder.logs}"
        console.print(text, style="bold yellow", highlight=False, soft_wrap=True)
        return STILL_OPEN
    if failed or not report.ok:
        names = "; ".join(check.name.strip() for check in failed)
        text = f"{counted(len(failed), 'check')} failed: {names}; logs: {system.folder.logs}"
        console.print(text, style="bold red", highlight=False, soft_wrap=True)
        return 1
    text = f"{payments:,} payments sent (10 % twice), each charged exactly once, in {seconds:.0f} s"
    console.print(text, style="bold green", highlight=False, soft_wrap=True)
    return 0


def only_open(failed: list[Check], report: AuditReport) -> bool:
    """True if open payments may be all that is missing from these checks."""
    others = [check for check in failed if check.name != OPEN]
    return report.open > 0 and all(0 < check.expected - check.found <= report.open for check in others)
