"""The dashboard of a real system in a real browser, in the states that an operator meets.

Two workers, the gateway simulator, a Kafka of their own that may be stopped; each test brings one fault,
looks at the page on a desk and on a phone, takes the pictures of docs/pictures, mends the fault, and waits
until all is well again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.dashboard import LONG_MS, PARTITIONS, Desk

ISO = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
pytestmark = pytest.mark.timeout(600)


def row_says(page: Page, caption: str, name: str, text: str) -> None:
    """A row, by its header, in a table, by its caption, has this text (a pattern), or comes to have it."""
    table = page.locator("table", has=page.locator("caption", has_text=caption))
    row = table.locator("tbody tr", has=page.locator("th", has_text=name))
    expect(row).to_contain_text(re.compile(text), use_inner_text=True)


def operator(desk: Desk, *words: str) -> None:
    """What an operator types."""
    command = Path(sys.executable).with_name("streamsocial-billing")
    environment = desk.system.worker.environment
    order = [str(command), *words, "--wait", "100"]
    subprocess.run(order, env=environment, check=True, capture_output=True, timeout=150)


def figures(page: Page) -> dict[str, str]:
    """The figures of the payment events, as they stand there."""
    rows = page.locator("table", has=page.locator("caption", has_text="Payment events")).locator("tbody tr")
    found = [one.split("\t") for one in rows.all_inner_texts()]
    return {name.split(" ")[0]: number for name, number in found}


def test_all_well_is_green_and_its_figures_add_up(desk: Desk) -> None:
    """Every event that was sent, by what became of it; both workers, the gateway, every partition."""
    desk.all_well()
    page = desk.pages["desktop"]
    expect(page.locator("#scope")).to_contain_text(f"All {PARTITIONS} partitions report", timeout=LONG_MS)
    shown = {name: int(number.replace(",", "")) for name, number in figures(page).items()}
    assert desk.system.sent == shown.pop("sent") == sum(shown.values())
    row_says(page, "Gateways", "simulated", r"simulated\s+available")
    workers = page.locator("table", has=page.locator("caption", has_text="Workers"))
    expect(workers.locator("td.ok")).to_have_count(2)
    desk.pictures("all-well")


def test_a_gateway_that_was_killed_leads_in_red(desk: Desk) -> None:
    """No payment can be charged: since when, with the last error, with how many wait; then it is back."""
    desk.system.gateway.kill()
    desk.send(60)
    desk.expect("Gateway simulated fails: no payment can be charged there.", "critical")
    for page in desk.pages.values():
        lead = page.locator("#lead")
        expect(lead).to_contain_text(re.compile(rf"Since {ISO}"))
        expect(lead).to_contain_text("Last error: unreachable")
        expect(lead).to_contain_text(re.compile(r"\d+ payments wait for it"), timeout=LONG_MS)
    row_says(desk.pages["desktop"], "Gateways", "simulated", rf"fails[\s\S]+{ISO}[\s\S]+unreachable")
    desk.pictures("gateway-down")
    desk.system.gateway.start()
    desk.all_well()


def test_a_gateway_that_an_operator_stopped_leads_with_who_when_why(desk: Desk) -> None:
    """It is the only one, so nothing can be charged: red. A second stop changes nothing of that."""
    operator(desk, "gateways", "stop", "simulated", "--actor", "ann", "--reason", "wrong fees, ticket 4711")
    desk.send(30)
    desk.expect("Gateway simulated is stopped: no payment is charged there.", "critical")
    operator(desk, "gateways", "stop", "simulated", "--actor", "bob", "--reason", "me too")
    for page in desk.pages.values():
        expect(page.locator("#lead")).to_contain_text('Stopped by ann: "wrong fees, ticket 4711".')
        expect(page.locator("#lead")).to_contain_text(re.compile(r"\d+ payments wait"), timeout=LONG_MS)
    row_says(desk.pages["desktop"], "Gateways", "simulated", rf"stopped\s+{ISO}\s+ann\s+wrong fees")
    desk.pictures("gateway-stopped")
    operator(desk, "gateways", "start", "simulated", "--actor", "ann", "--reason", "fees are right")
    desk.all_well()


def test_a_worker_that_was_killed_takes_no_figures_with_it(desk: Desk) -> None:
    """Red while its partitions wait, its figures those of before; amber once others have them; then green."""
    page, (_, other) = desk.pages["desktop"], desk.system.workers
    expect(page.locator("#scope")).to_contain_text(f"All {PARTITIONS} partitions report", timeout=LONG_MS)
    before = figures(page)
    other.kill()
    desk.expect("A worker does not answer: payments of 4 partitions wait.", "critical")
    assert before == figures(page)
    expect(page.locator("#scope")).to_contain_text(re.compile(rf"4 of 8 partitions report now\..+{ISO}"))
    row_says(page, "Workers", str(other.web_port), "does not answer")
    desk.pictures("worker-gone")
    desk.expect("A worker is gone; others have taken over its partitions.", "warning")
    assert before == figures(page)
    other.start()
    desk.all_well()


def test_kafka_that_is_stopped_leads_in_red(desk: Desk) -> None:
    """Nothing is handled: said once, not once for each partition; figures and owners are those of before."""
    page = desk.pages["desktop"]
    before = figures(page)
    desk.kafka.stop()
    desk.expect("Kafka does not answer: no payment is handled.", "critical")
    expect(page.locator("#lead")).to_contain_text(re.compile(rf"Since {ISO}"))
    expect(page.locator("caption", has_text="as they were shared out before Kafka was lost")).to_have_count(1)
    assert before == figures(page)
    desk.pictures("kafka-down")
    desk.kafka.start()
    desk.all_well()


def test_a_worker_that_answers_no_more_says_so_on_its_own_page(desk: Desk) -> None:
    """The page stays and turns red, with when the last answer was; it goes on once the worker is back."""
    desk.system.worker.kill()
    desk.expect("This worker does not answer.", "critical")
    for page in desk.pages.values():
        expect(page.locator("#lead")).to_contain_text(re.compile(rf"Last answer at {ISO}"))
    desk.system.worker.start()
    desk.all_well()
