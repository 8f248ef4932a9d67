"""What one worker shows of the system over time: since when, and what it remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from streamsocial_billing.payments.gateway_availability import ALL_STATES
from streamsocial_billing.web.audit import everywhere_now
from streamsocial_billing.web.dashboard import dashboard_of
from streamsocial_billing.web.html import page
from streamsocial_billing.web.status import overview as overview_module
from streamsocial_billing.web.status.overview import Overview
from streamsocial_billing.web.status.peers import Peers
from streamsocial_billing.web.status.report import Report
from streamsocial_billing.web.status.state import RUNNING

NOW = 1_790_000_000_000
ONE, TWO = "http://one:6066", "http://two:6066"
NASTY = "<script>alert('x')</script>"


def books(partition: int, charged: int, at_ms: int) -> dict[str, Any]:
    """The live audit of a task that charged so many payments of one euro."""
    counters = {
        "events/payments": charged, "first_results/payments": charged, "outcomes/charged": charged,
        "charged/EUR": 100 * charged,
    }  # fmt: skip
    return {
        "partition": partition, "checked_at": at_ms, "rows_at": at_ms, "counters": counters, "breaks": [],
        "payments": {"handled": charged, "answered": charged, "dead_letters": 0, "lost": 0, "double": 0},
        "outcomes": {}, "open": {"unknown": 0, "parked": 0},
    }  # fmt: skip


class Shop:
    """Two workers, a partition each; the test changes what they say, and moves the clock."""

    def __init__(self) -> None:
        self.now_ms = NOW
        self.running = {ONE: True, TWO: True}
        self.gateway: dict[str, Any] = {
            "name": "stripe", "state": "closed", "since": None, "actor": "", "reason": "",
        }  # fmt: skip
        self.states = {ONE: RUNNING, TWO: RUNNING}
        self.kafka_since: int | None = None
        self.brokers: dict[str, list[dict[str, Any]]] = {}
        self.url = ONE
        self.overview = Overview(self, Peers(self.ask))  # type: ignore[arg-type]

    def report(self) -> Report:
        """What the worker that is looked at says of itself."""
        return self.of(ONE)

    async def ask(self, url: str) -> Report | None:
        """What the other one answers."""
        return self.of(url) if self.running[url] else None

    def of(self, url: str) -> Report:
        """A worker's report; one whose task does not run has no books at hand."""
        number, runs = (0, 1)[url == TWO], self.states[url] == RUNNING
        return {
            "url": url, "at": self.now_ms, "total": 2,
            "kafka": {
                "answers": self.kafka_since is None, "since": self.kafka_since, "last_contact": NOW,
                **({"brokers": self.brokers[url]} if url in self.brokers else {}),
            },
            "assignment": {"at": NOW, "owners": {"0": ONE, "1": TWO}},
            "tasks": [{"partition": number, "state": self.states[url], "why": NASTY, "stuck": None}],
            "gateways": [self.gateway],
            "open": {str(number): []} if runs else {},
            "backlog": {str(number): {"count": 0, "unread": 0, "oldest": None}} if runs else {},
            "books": [books(number, 10, self.now_ms)] if runs else [],
        }  # fmt: skip

    def seen(self, after_s: float = 3.0) -> Any:
        """A look so much later."""
        self.now_ms += int(after_s * 1000)
        return asyncio.run(self.overview.ask())


@pytest.fixture
def shop() -> Shop:
    shop = Shop()
    assert "all_well" == shop.seen().headline.code
    return shop


def charged(seen: Any) -> int:
    """The sum that the page shows."""
    number: int = everywhere_now(seen, "payments")["money"]["EUR"]["charged_minor"]
    return number


def test_the_sums_do_not_fall_when_a_worker_dies(shop: Shop) -> None:
    """What it reported last stays, and is named; with the worker it is new again."""
    assert 2000 == charged(shop.seen())
    shop.running[TWO] = False
    seen = shop.seen()
    audit = everywhere_now(seen, "payments")
    assert (2000, [0], ["1"], None) == (charged(seen), audit["here"], list(audit["remembered"]), audit["ok"])
    assert ("worker_silent", [1]) == (seen.headline.code, seen.as_json()["backlog"]["not_known"])
    assert "not handled yet; of 1 partition nobody knows" in dashboard_of(seen, "payments")["outcomes"][-1]
    shop.running[TWO] = True
    back = shop.seen()
    assert ("all_well", [0, 1]) == (back.headline.code, everywhere_now(back, "payments")["here"])


def test_the_sums_do_not_fall_while_every_task_opens_anew(shop: Shop) -> None:
    """A rebalance closes all of them for a moment: the figures are those of before it."""
    shop.states = {ONE: "recovering", TWO: "fencing"}
    seen = shop.seen()
    assert (2000, frozenset()) == (charged(seen), seen.now)
    assert "partition_starting" == seen.headline.code


def test_a_finding_keeps_its_beginning_until_it_is_over(shop: Shop) -> None:
    """What does not know by itself since when it is so began at the first look that found it."""
    shop.states[ONE] = "blocked"
    began_ms = shop.seen().state.at_ms
    assert [began_ms] * 3 == [shop.seen().headline.since_ms for _ in range(3)]
    shop.states[ONE] = RUNNING
    shop.seen()
    shop.states[ONE] = "blocked"
    assert shop.now_ms + 3000 == shop.seen().headline.since_ms


def test_who_asks_nobody_sees_what_was_last_heard(shop: Shop) -> None:
    """`/status` without `workers=all`, and a worker whose Kafka is gone: from memory."""
    shop.running[TWO] = False
    assert "all_well" == shop.overview.look().headline.code
    shop.kafka_since = NOW
    body = shop.overview.look().as_json()
    assert ("kafka_unreachable", False, False) == (
        body["findings"][0]["code"], body["ok"], body["assignment"]["current"],
    )  # fmt: skip


def broker(number: int, since: int | None = None, partitions: Sequence[int] = ()) -> dict[str, Any]:
    """What a worker says of a broker; with `since` it is away."""
    return {
        "id": number, "address": f"k{number}:9092", "up": since is None, "since": since,
        "partitions": list(partitions),
    }  # fmt: skip


def test_a_broker_away_is_one_finding_however_many_workers_miss_it(shop: Shop) -> None:
    """Since the first of them missed it; with the partitions of all that wait for it, wherever they are."""
    shop.brokers = {
        ONE: [broker(1), broker(2, NOW - 4000, [0]), broker(3)],
        TWO: [broker(1), broker(2, NOW - 5000, [1]), broker(3)],
    }
    headline = shop.seen().headline
    assert ("kafka_broker_unreachable", "Kafka broker 2 (k2:9092) is not reachable.", NOW - 5000) == (
        headline.code, headline.headline, headline.since_ms,
    )  # fmt: skip
    assert headline.detail.startswith("Partitions 0-1 wait for another leader.")


def test_a_broker_that_one_worker_alone_misses_is_said_to_be_so(shop: Shop) -> None:
    """It is the network between these two; a worker of an older release says nothing of brokers."""
    shop.brokers = {TWO: [broker(1), broker(2, NOW), broker(3)]}
    assert "Kafka broker 2 (k2:9092) is not reachable from 1 worker." == shop.seen().headline.headline


def test_the_dashboard_escapes_what_others_wrote(shop: Shop) -> None:
    """A reason is text, wherever it stands; the only script is ours."""
    shop.gateway |= {"state": "stopped", "since": NOW, "actor": NASTY, "reason": NASTY}
    shop.states[TWO] = "blocked"
    text = str(page("dashboard.html", **dashboard_of(shop.seen(), "payments")).text)
    assert NASTY not in text
    assert text.count("&lt;script&gt;alert(") >= 4
    assert 1 == text.count("<script>")


def test_every_table_of_the_dashboard_has_a_caption_and_scopes(shop: Shop) -> None:
    """Read aloud, each figure has its name."""
    text = str(page("dashboard.html", **dashboard_of(shop.seen(), "payments")).text)
    assert text.count("<table") == text.count("<caption>") == 6
    assert text.count("<th ") == text.count('scope="')


@pytest.mark.parametrize("state", [*ALL_STATES, "of_a_later_release"])
def test_every_state_of_a_gateway_has_a_page(shop: Shop, state: str) -> None:
    """Whatever a worker says of its gateway, of a release to come too: a look never fails, `/` shows it."""
    shop.gateway |= {"state": state, "since": None, "reason": "because"}
    seen = shop.seen()
    assert (state == "closed" or state == "half_open") == (seen.headline.code == "all_well")
    assert 200 == page("dashboard.html", **dashboard_of(seen, "payments")).status
    assert state == seen.as_json()["gateways"][0]["state"]


def test_a_gateway_that_is_not_set_up_while_payments_wait_for_it_is_said_so(shop: Shop) -> None:
    """The state that an upgrade leaves where `simulated` had open payments and its URL is unset."""
    shop.gateway |= {"state": "not_configured", "reason": "open payments wait for it"}
    assert ["gateway_not_set_up"] == [one.code for one in shop.seen().findings]


async def test_a_look_that_fails_does_not_end_the_worker(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Looking at the system is for people: whatever is wrong with it, payments go on."""
    tries: list[int] = []

    async def broken() -> None:
        tries.append(1)
        if len(tries) == 3:
            raise asyncio.CancelledError
        raise KeyError("a field of a later release")

    monkeypatch.setattr(overview_module, "LOOK_EVERY_S", 0)
    monkeypatch.setattr(shop.overview, "ask", broken)
    with pytest.raises(asyncio.CancelledError):
        await shop.overview.run()
    assert ["looking at the system failed"] * 2 == [one.getMessage() for one in caplog.records]
