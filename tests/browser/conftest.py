"""One real system for all tests in a browser: two workers, the gateway simulator, a Kafka of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser
from support.browser import SIZES, browser, open_page
from support.dashboard import PARTITIONS, Desk
from support.system import Payments, System

from broker import LocalBroker


# not longer: playwright's loop runs in this thread meanwhile, and no test that has a loop of its own can
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def desk(chromium: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("browser")
    with LocalBroker(folder / "kafka", port=0) as kafka:
        # as long as a worker that was killed has its partitions the pages are looked at
        system = System(
            kafka.bootstrap, folder, "shop", workers=2, partitions=PARTITIONS, BILLING_SESSION_TIMEOUT_S=40
        )
        with system:
            for worker in system.workers:
                worker.keeps_port = True
            system.start()
            pages = {size: open_page(chromium, size) for size in SIZES}
            desk = Desk(system, kafka, chromium, pages, folder, Payments(seed=3))
            desk.send(600)
            system.wait_answered()
            for page in pages.values():
                page.goto(f"http://127.0.0.1:{system.worker.web_port}/")
            desk.all_well()
            yield desk
