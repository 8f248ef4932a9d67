"""The dashboard of a real system, looked at in the sizes of a desk and of a phone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, expect
from support.browser import fits, picture
from support.system import Payments, System

from broker import LocalBroker

PARTITIONS = 8
LONG_MS = 180_000
WELL = "All is well: no difference found, payments are handled."


@dataclass
class Desk:
    """What every test shares: the system, its Kafka, the dashboard of the first worker in each size."""

    system: System
    kafka: LocalBroker
    chromium: Browser
    pages: dict[str, Page]
    folder: Path
    payments: Payments

    def expect(self, headline: str | re.Pattern[str], severity: str) -> None:
        """Each page leads with this, in this colour class, and fits its screen."""
        for page in self.pages.values():
            expect(page.locator(f"#lead.{severity} h1")).to_have_text(headline, timeout=LONG_MS)
            assert fits(page)

    def pictures(self, state: str) -> None:
        """Of this state, in each size."""
        for size, page in self.pages.items():
            page.evaluate("scrollTo(0, 0)")
            picture(page, self.folder, f"dashboard-{state}-{size}")

    def send(self, count: int) -> None:
        """Payments, handled or not."""
        self.system.submit(self.payments.take(count))

    def all_well(self) -> None:
        """The end of every test: the page is green again, nothing is open, all that was sent is there."""
        self.expect(WELL, "ok")
        for page in self.pages.values():
            rows = page.locator("table", has=page.locator("caption", has_text="Payment events"))
            sent = rows.locator("tr.sum td")
            expect(sent).to_have_text(f"{self.system.sent:,}", timeout=LONG_MS)
            open_ = rows.locator("tr", has_text="no final outcome yet").locator("td")
            expect(open_).to_have_text("0", timeout=LONG_MS)
