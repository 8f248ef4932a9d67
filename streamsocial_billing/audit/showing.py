"""The report of an audit for people, or as JSON."""

from __future__ import annotations

from dataclasses import fields
from typing import TextIO

import orjson
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from streamsocial_billing.audit.report import AuditReport
from streamsocial_billing.audit.tally import PARTS, OpenGroup
from streamsocial_billing.domain.english import counted
from streamsocial_billing.domain.money import shown_amount
from streamsocial_billing.domain.statuses import WITHOUT_MONEY
from streamsocial_billing.domain.times import iso_to_the_second

MEANS = {
    "charged": "charges that succeeded",
    "refunded": "refunds that succeeded",
    "declined": "refused by the gateway or the bank",
    "failed": "proven not executed",
    "rejected": "refused before the gateway",
    "open": "unknown or parked, not settled yet",
    "repeats": "sent again, answered with the stored outcome",
    "dead_letters": "cannot be handled, on payments-dlq",
    "waiting": "not handled by a worker yet",
}


def report_to(report: AuditReport, out: TextIO, *, as_json: bool) -> None:
    """Write the report: for people, or as one line of JSON with `ok` and `settled` beside the fields."""
    if as_json:
        shown = {one.name: getattr(report, one.name) for one in fields(report)} | {
            "ok": report.ok,
            "settled": report.settled,
            "open_payments": [group._asdict() for group in report.open_payments],
            "problems": [problem._asdict() for problem in report.problems],
        }
        out.write(orjson.dumps(shown).decode() + "\n")
    else:
        Console(file=out, soft_wrap=True).print(render(report))


def render(report: AuditReport) -> Group:
    """For a terminal: the verdict with the worst first, the events, other counts, money."""
    money = [_money("money charged", report, "charge")]
    if report.refunded:
        money.append(_money("money given back", report, "refund"))
    return Group(
        *_verdict(report), *_not_read(report), *_still_open(report), _events(report), _counts(report), *money
    )  # fmt: skip


# ---- what holds


def _verdict(report: AuditReport) -> list[Text]:
    lines = []
    if report.problem_total:
        lines.append(f"{counted(report.problem_total, 'difference')} found:")
        lines += [f"  {problem}" for problem in report.problems]
        if report.problem_total > len(report.problems):
            lines.append(f"  ... {report.problem_total - len(report.problems)} more")
    if report.unread is not None:
        lines.append(f"not compared with the gateway: {report.unread}")
    if report.ok:
        return [Text(claim(report), "bold green" if report.settled else "bold yellow")]
    return [Text(line, "bold red") for line in lines]


def claim(report: AuditReport) -> str:
    """What holds where nothing differs, in one line: what is open first, then each outcome."""
    found = report.outcomes
    waits = [
        counted(found["open"], "payment is open", "payments are open"),
        counted(found["waiting"], "event waits for a worker", "events wait for a worker"),
    ]
    parts = [text for text, name in zip(waits, ("open", "waiting"), strict=True) if found[name]]
    parts.append(_charges(report))
    parts += [f"{found[name]:,} {name}" for name in WITHOUT_MONEY if found[name]]
    parts += [counted(found["repeats"], "repeat")] * (found["repeats"] > 0)
    parts += [counted(found["dead_letters"], "dead letter")] * (found["dead_letters"] > 0)
    return f"nothing differs: {'; '.join(parts)}"


def _charges(report: AuditReport) -> str:
    found = report.outcomes
    charged = counted(found["charged"], "charge")
    refunded = f", {counted(found['refunded'], 'refund')}" if found["refunded"] else ""
    if not report.listed:
        return f"{charged}{refunded}, not compared with any gateway"
    if any(report.not_compared.values()):
        return f"{charged}{refunded}, those at {' and '.join(report.listed)} each exactly once there"
    return f"{charged}{refunded}, each exactly once at the gateway"


def _not_read(report: AuditReport) -> list[Text]:
    """Which side is left out on purpose."""
    if not report.listed and report.unread is None:
        why = "BILLING_GATEWAY_URL is not set, so no simulated gateway was read"
    elif any(report.not_compared.values()):
        why = f"of the gateways only {' and '.join(report.listed)} was read" if report.listed \
            else "no gateway was read"  # fmt: skip
    else:
        return []
    return [Text(f"  {why}; `reconcile` compares with real gateways", "yellow")]


def _still_open(report: AuditReport) -> list[Text]:
    lines = [f"  open: {_group(group)}" for group in report.open_payments]
    behind = report.behind.items()  # offsets: markers of transactions are among them
    lines += [f"  not handled yet: up to {counted(count, 'record')} of {topic}" for topic, count in behind]
    return [Text(line, "yellow") for line in lines]


def _group(group: OpenGroup) -> str:
    since = f", the oldest since {iso_to_the_second(group.since)}" if group.since is not None else ""
    return f"{group.payments:,} {group.status} at {group.gateway} ({group.why}){since}"


# ---- tables


def _events(report: AuditReport) -> Table:
    """The parts with their sum beside what was sent."""
    table = Table("outcome", title="events on payments", show_footer=True)
    parts = sum(report.outcomes[name] for name in PARTS)
    sent = report.outcomes["sent"]
    mark = Text("= sent", "green") if parts == sent else Text(f"but {sent:,} were sent", "bold red")
    table.columns[0].footer = "together"
    table.add_column("events", justify="right", footer=f"{parts:,}")
    table.add_column("which are", footer=mark)
    for name in PARTS:
        table.add_row(name.replace("_", " "), f"{report.outcomes[name]:,}", MEANS[name])
    return table


def _counts(report: AuditReport) -> Table:
    table = Table(title="records", show_header=False)
    rows = {
        "different payments on the log": report.payments,
        "results": sum(sum(kinds) for kinds in report.results.values()),
        "  of what gateways made": report.outcomes["external"],
        "metrics, one for each result": report.metrics,
        "metrics of the intake": report.requested,
        "dead letters of other topics": report.dead_letters_elsewhere,
    }
    for kind, counts in (("charges", report.gateway), ("refunds", report.refunds)):
        rows |= {f"{kind} at the gateway, {status}": count for status, count in sorted(counts.items())}
    table.add_column()
    table.add_column(justify="right")
    for name, count in rows.items():
        table.add_row(name, f"{count:,}")
    return table


def _money(title: str, report: AuditReport, action: str) -> Table:
    """What results, gateways, tables say; what is not to be compared yet, or here, in columns of its own."""
    ahead, elsewhere = report.ahead[action], report.not_compared[action] if report.listed else {}
    table = Table("currency", title=title)
    columns = ["results", *(["gateway"] if report.listed else []), "tables"]
    columns += ["of open ones at the gateway"] * bool(ahead) + ["at gateways not read"] * bool(elsewhere)
    for heading in (*columns, ""):
        table.add_column(heading, justify="right")
    for currency, (results, gateway, tables) in getattr(report, SIDES[action]).items():
        mine = [results, *([gateway] if report.listed else []), tables]
        mine += [ahead.get(currency, 0)] * bool(ahead) + [elsewhere.get(currency, 0)] * bool(elsewhere)
        listed = not report.listed or results == gateway - ahead.get(currency, 0) + elsewhere.get(currency, 0)
        mark = Text("=", "green") if results == tables and listed else Text("differs", "bold red")
        table.add_row(currency, *(shown_amount(side, currency) for side in mine), mark)
    return table


SIDES = {"charge": "money", "refund": "refunded"}
