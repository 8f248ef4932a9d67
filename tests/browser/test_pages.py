"""The other pages for people, as a browser shows them: reached from the dashboard, legible on a phone."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from support.browser import SIZES, fits, open_page, picture
from support.dashboard import Desk
from support.until import until
from support.web_client import get

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=sorted(SIZES))
def page(desk: Desk, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The dashboard in a page of its own, on a desk and on a phone."""
    page = open_page(desk.chromium, request.param)
    page.goto(f"http://127.0.0.1:{desk.system.worker.web_port}/")
    yield page
    page.close()


def size_of(page: Page) -> str:
    """The name of its size."""
    return next(name for name, (width, _) in SIZES.items() if page.viewport_size["width"] == width)  # type: ignore[index]


def is_accessible(page: Page) -> None:
    """Fits; one h1; each table has a caption, each header cell a scope, each field of the form a label."""
    assert fits(page)
    expect(page.locator("h1")).to_have_count(1)
    for table in page.locator("table").all():
        expect(table.locator("caption")).to_have_count(1)
    assert [] == page.locator("th:not([scope])").all_inner_texts()
    for field in page.locator("input").all():
        expect(page.locator(f"label[for={field.get_attribute('id')}]")).to_have_count(1)


def test_a_user_and_a_payment_are_found_from_the_dashboard(desk: Desk, page: Page) -> None:
    """By the form below; money with its digits, times in ISO 8601, links from one to the other."""
    is_accessible(page)
    one = next(one for one in desk.system.all_results() if one["status"] == "succeeded")
    page.get_by_label("User").fill(one["user_id"])
    page.get_by_role("button", name="Look up").click()
    expect(page.locator("h1")).to_have_text(f"Charges of {one['user_id']}")
    is_accessible(page)
    expect(page.locator("table").first).to_contain_text(one["currency"])
    page.get_by_label("User").fill(one["user_id"])
    page.get_by_label("payment").fill(one["payment_id"])
    page.get_by_role("button", name="Look up").click()
    expect(page.locator("h1")).to_have_text(f"Charge {one['payment_id']}: succeeded")
    expect(page.locator("main")).to_contain_text(re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"))
    is_accessible(page)
    picture(page, desk.folder, f"payment-{size_of(page)}")
    page.get_by_role("link", name=one["user_id"]).click()
    expect(page.locator("h1")).to_have_text(f"Charges of {one['user_id']}")


def test_the_subscriptions_of_a_user_are_a_page(desk: Desk, page: Page) -> None:
    """Each with its state, price, next renewal."""
    user, name = f"sub-{size_of(page)}", "gold"
    command = Path(sys.executable).with_name("streamsocial-billing")
    subprocess.run(
        [str(command), "subscriptions", "add", user, name, "--amount-minor", "1250", "--currency", "EUR",
         "--payment-method", "pm_card_visa", "--actor", "ann", "--reason", "a test", "--wait", "100"],
        env=desk.system.worker.environment, check=True, capture_output=True, timeout=150,
    )  # fmt: skip
    port, path = desk.system.worker.web_port, f"/users/{user}/subscriptions"
    until(lambda: 200 == get(port, path).status, "the order is carried out, then stored")
    page.goto(f"http://127.0.0.1:{port}{path}")
    expect(page.locator("h1")).to_have_text(f"Subscriptions of {user}")
    expect(page.locator("tbody")).to_contain_text("12.50 EUR")
    is_accessible(page)


def test_the_live_audit_is_a_page(desk: Desk, page: Page) -> None:
    """With its verdict first."""
    page.get_by_role("link", name="Live audit").click()
    expect(page.locator("#lead, .lead").locator("h1")).to_have_text("No difference found.")
    is_accessible(page)


def test_the_last_reconciliation_is_a_page(desk: Desk, page: Page) -> None:
    """Before the first run it says so; then its verdict leads."""
    page.get_by_role("link", name="Reconciliation").click()
    is_accessible(page)
    command = Path(sys.executable).with_name("streamsocial-billing")
    done = subprocess.run(
        [str(command), "reconcile", "--output", str(desk.folder / f"reports-{size_of(page)}")],
        env=desk.system.worker.environment, capture_output=True, timeout=150, check=False, text=True,
    )  # fmt: skip
    assert done.returncode < 2, done.stderr

    def is_there() -> bool:
        page.reload()
        return bool(re.search(r"open break", page.locator("h1").inner_text()))

    for _ in range(120):
        if is_there():
            break
        page.wait_for_timeout(500)
    expect(page.locator("h1")).to_contain_text("open break")
    expect(page.locator("table").first).to_contain_text("Breaks by class")
    is_accessible(page)


def test_what_is_not_there_is_a_page_too(desk: Desk, page: Page) -> None:
    """Whoever mistypes an id reads a sentence, with the way back."""
    page.get_by_label("User").fill("nobody")
    page.get_by_role("button", name="Look up").click()
    expect(page.locator("h1")).to_have_text("Not found")
    is_accessible(page)
    page.get_by_role("link", name="Dashboard").click()
    expect(page.locator("#lead")).to_be_visible()
