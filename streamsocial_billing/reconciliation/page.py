"""The report as one HTML page, for a person of finance: no script, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from itertools import groupby
from typing import IO, Any, Final
from urllib.parse import quote

from streamsocial_billing.domain.money import MINUS, shown_amount
from streamsocial_billing.domain.times import iso_to_the_second
from streamsocial_billing.reconciliation.breaks import AGE_BUCKETS, MEANINGS, TIMING
from streamsocial_billing.reconciliation.bridge import BESIDE, STEPS, Bridge, Step
from streamsocial_billing.reconciliation.report import Summary, not_checked_text

LIST_MOST: Final = 500
"""Breaks in the page, open ones first; `breaks.csv` has all."""

_STYLE: Final = """
:root { color-scheme: light dark; --line: #8883; --soft: #8881; --good: #16803c; --bad: #b42318;
  font: 15px/1.5 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2.2rem 0 .5rem; }
p { margin: .3rem 0; } .about { color: #777; }
.verdict { font-size: 1.15rem; font-weight: 600; margin: .8rem 0; }
.good { color: var(--good); } .bad { color: var(--bad); }
.scroll { overflow-x: auto; } .bridge { margin: .6rem 0 1.2rem; }
.bridge th, .bridge td { width: 1%; white-space: nowrap; } .bridge td:first-child { width: 30%; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
caption { text-align: left; font-size: 1.1rem; font-weight: 600; padding: 2rem 0 .4rem; }
th { font-weight: 600; } .n { text-align: right; white-space: nowrap; }
tr.total td { font-weight: 600; background: var(--soft); } td.step { padding-left: 1.6rem; }
tr.beside td { color: #777; } code { font-size: .85em; } .tag { font-size: .8em; color: var(--bad); }
.breaks td { font-size: .9em; overflow-wrap: anywhere; } .breaks td:nth-last-child(-n+2) { min-width: 11rem; }
.breaks td:nth-child(3) { min-width: 8rem; } .breaks td:first-child { min-width: 10rem; }
.classes td:first-child { width: 45%; } .classes th { white-space: nowrap; }
@media (max-width: 44rem) { body { margin: 1rem auto; padding: 0 .9rem; } table { font-size: .85em; } }
@media print { body { max-width: none; margin: 0; } a { color: inherit; text-decoration: none; } }
"""


def write_page(summary: Summary, breaks: Iterable[dict[str, Any]], link_base: str, file: IO[str]) -> None:
    """Write the page; `breaks` in the order in which they are listed, `link_base` a worker's address."""
    for part in _parts(summary, breaks, link_base):
        file.write(part + "\n")


def _parts(summary: Summary, breaks: Iterable[dict[str, Any]], link_base: str) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>Reconciliation as of {iso_to_the_second(summary.as_of)}</title>\n<style>{_STYLE}</style>"
    yield from _head(summary)
    yield from _classes(summary)
    yield from _bridge(summary.bridges)
    yield from _list(summary, breaks, link_base)
    yield from _not_ours(summary)
    yield from _inputs(summary)
    yield "</html>"


def _head(summary: Summary) -> Iterator[str]:
    yield f"<h1>Reconciliation</h1>\n<p class='about'>as of {_when(summary.as_of)}</p>"
    if summary.clean:
        far = ", as far as they were checked" if summary.not_checked else ""
        text = f"Clean: our books, the gateways and the settlement files agree{far}."
        yield f"<p class='verdict good'>{text}</p>"
    else:
        breaks = "break is" if summary.open == 1 else "breaks are"
        yield f"<p class='verdict bad'>{summary.open:,} {breaks} open.</p>"
    for one in summary.not_checked:
        yield f"<p class='bad'>{escape(not_checked_text(one).capitalize())}.</p>"
    under_way = summary.found.get(TIMING)
    if under_way is not None:
        count = f"{under_way.count:,} payments were under way while the run looked"
        yield f"<p>{count}; they are not open breaks.</p>"


def _bridge(bridges: list[Bridge]) -> Iterator[str]:
    yield "<h2>From what we charged to what was paid out</h2>"
    if not bridges:
        yield "<p>No money has moved yet.</p>"
        return
    for gateway, group in groupby(bridges, key=lambda one: one.gateway):
        yield from _bridge_of_gateway(gateway, list(group))
    if not all(one.settled for one in bridges):
        why = "Where no settlement file was loaded the bridge ends at the gateway's list."
        yield f"<p class='about'>{why}</p>"


def _bridge_of_gateway(gateway: str, bridges: list[Bridge]) -> Iterator[str]:
    yield _table("bridge", gateway, "step", *(f"#{one.currency}" for one in bridges))
    for step in STEPS:
        if step.sign == "=" or any(one.amounts[step.name] for one in bridges):
            yield _bridge_row(step, bridges, "total" if step.sign == "=" else "")
    for step in BESIDE:
        if any(one.amounts[step.name] for one in bridges):
            yield _bridge_row(step, bridges, "beside")
    yield "</tbody></table></div>"


def _bridge_row(step: Step, bridges: list[Bridge], kind: str) -> str:
    cells = "".join(f"<td class='n'>{_bridge_cell(step, one)}</td>" for one in bridges)
    sign = {"+": "+ ", "-": "\N{MINUS SIGN} ", "=": "", "·": ""}[step.sign]
    place = "" if step.sign == "=" else " class='step'"
    return f"<tr class='{kind}'><td{place}>{sign}{escape(step.title)}</td>{cells}</tr>"


_BEFORE_FILES: Final = frozenset(step.name for step in STEPS[:5]) | {step.name for step in BESIDE}


def _bridge_cell(step: Step, one: Bridge) -> str:
    if step.name not in _BEFORE_FILES and not one.settled:
        return ""
    amount = one.amounts[step.name]
    return shown_amount(amount, one.currency, MINUS) if amount or step.sign == "=" else "\N{EN DASH}"


def _classes(summary: Summary) -> Iterator[str]:
    if not summary.found:
        yield "<h2>Breaks by class and age</h2>\n<p>None.</p>"
        return
    ages = (f"#{age}" for age in AGE_BUCKETS)
    yield _table("classes", "Breaks by class and age", "class", "#breaks", "#money at stake", *ages)
    for name, found in summary.found.items():
        sums = ((shown_amount(amount, code, MINUS), code) for code, amount in found.money.items())
        money = "<br>".join(f"{amount} {escape(code)}" for amount, code in sums)
        counts = "".join(f"<td class='n'>{found.ages.get(age) or ''}</td>" for age in AGE_BUCKETS)
        yield (
            f"<tr><td><code>{name}</code><br><span class='about'>{escape(MEANINGS[name])}</span></td>"
            f"<td class='n'>{found.count:,}</td><td class='n'>{money}</td>{counts}</tr>"
        )
    yield "</tbody></table></div>"


def _list(summary: Summary, breaks: Iterable[dict[str, Any]], link_base: str) -> Iterator[str]:
    total = sum(one.count for one in summary.found.values())
    if not total:
        return
    most = f": the first {LIST_MOST:,} of {total:,}; breaks.csv has all" if total > LIST_MOST else ""
    yield _table(
        "breaks", f"Each break{most}", "class", "payment", "at the gateway", "#at stake", "#days", "found",
        "what to do",
    )  # fmt: skip
    for count, one in enumerate(breaks):
        if count == LIST_MOST:
            break
        yield _break_row(one, link_base)
    yield "</tbody></table></div>"


def _break_row(one: dict[str, Any], link_base: str) -> str:
    tags = "".join(f"<br><span class='tag'>{escape(tag)}</span>" for tag in one["tags"])
    at_stake = f"{shown_amount(one['at_stake_minor'], one['currency'], MINUS)} {escape(one['currency'])}"
    place = escape(one["gateway"])
    if one["gateway_ref"]:
        place += f"<br><code>{escape(one['gateway_ref'])}</code>"
    if one["payout_id"]:
        place += f"<br>payout <code>{escape(one['payout_id'])}</code>"
    return (
        f"<tr id='{one['id']}'><td><code>{one['class']}</code>{tags}<br>"
        f"<code class='about'>{one['id']}</code></td><td>{_payment(one, link_base)}</td><td>{place}</td>"
        f"<td class='n'>{at_stake}</td><td class='n'>{one['age_days']}</td><td>{escape(one['detail'])}</td>"
        f"<td>{escape(one['action'])}</td></tr>"
    )


def _payment(one: dict[str, Any], link_base: str) -> str:
    user, payment = one["user_id"], one["payment_id"]
    if not user:
        return ""
    if not payment:
        return escape(user)
    to = f"{link_base.rstrip('/')}/payments/{quote(user, safe='')}/{quote(payment, safe='')}"
    return f"<a href='{escape(to, quote=True)}'>{escape(user)} / {escape(payment)}</a>"


def _not_ours(summary: Summary) -> Iterator[str]:
    """What bears no reference of ours, as it came: never a break."""
    if not summary.not_ours:
        return
    caption = "Not ours: without a reference of ours, counted, never a break"
    yield _table("", caption, "gateway", "where", "kind", "#count", "#minor units", "currency")
    for one in summary.not_ours:
        where = "its list" if one["leg"] == "list" else "settlement files"
        yield (
            f"<tr><td>{escape(one['gateway'])}</td><td>{where}</td><td>{escape(one['kind'])}</td>"
            f"<td class='n'>{one['count']:,}</td><td class='n'>{one['amount_minor']:,}</td>"
            f"<td>{escape(one['currency'])}</td></tr>"
        )
    yield "</tbody></table></div>"


def _inputs(summary: Summary) -> Iterator[str]:
    yield "<table><caption>What was compared</caption><tbody>"
    for name, title in (
        ("results", "payments with a result in our books"), ("movements", "rows of the gateways' lists"),
        ("lines", "settlement lines"), ("unhandled", "events that no worker had handled yet"),
    ):  # fmt: skip
        yield f"<tr><th scope='row'>{title}</th><td class='n'>{summary.legs[name]:,}</td></tr>"
    for file in summary.header["files"]:
        about = f"{escape(file['name'])} ({escape(file['format'])}, sha256 {file['hash'][:16]}...)"
        yield f"<tr><th scope='row'>{about}</th><td class='n'>{file['lines']:,} lines</td></tr>"
    if summary.header["since"]:
        since = _when(summary.header["since"])
        yield f"<tr><th scope='row'>the gateways' lists begin at</th><td class='n'>{since}</td></tr>"
    yield "</tbody></table>"


def _table(kind: str, caption: str, *heads: str) -> str:
    """The beginning of a table; a head that begins with `#` is of a column of numbers."""
    cells = "".join(
        f"<th scope='col'{' class=n' if head.startswith('#') else ''}>{escape(head.removeprefix('#'))}</th>"
        for head in heads
    )
    return (
        f"<div class='scroll'><table class='{kind}'><caption>{escape(caption)}</caption>"
        f"<thead><tr>{cells}</tr></thead><tbody>"
    )


def _when(at_ms: int) -> str:
    return iso_to_the_second(at_ms).replace("T", " ").replace("Z", " UTC")
