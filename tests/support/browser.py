"""Debian's Chromium, driven by Playwright: pages in the sizes of a desk and of a phone, pictures of them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from processes import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
)  # fmt: skip
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
PICTURES = ROOT / "docs" / "pictures"
LARGEST_BYTES = 150_000
expect.set_options(timeout=60_000)  # a page of a busy machine may be seconds behind


def chromium_or_skip() -> str:
    """The path of Chromium. Without one a CI run fails, another one skips the test, saying why."""
    if CHROMIUM is not None:
        return CHROMIUM
    if os.environ.get("CI"):
        pytest.fail("no Chromium on this machine: apt-get install chromium")
    pytest.skip("no Chromium on this machine: apt-get install chromium")


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser with a profile of its own; ends with the `with`."""
    path = chromium_or_skip()
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        try:
            yield opened
        finally:
            opened.close()


def open_page(opened: Browser, size: str) -> Page:
    """An empty page of a size; what its script throws fails the test that looks next."""
    width, height = SIZES[size]
    page = opened.new_page(
        viewport={"width": width, "height": height}, is_mobile=size == "phone", color_scheme="light",
        reduced_motion="reduce",
    )  # fmt: skip
    page.set_default_timeout(60_000)
    return page


def fits(page: Page) -> bool:
    """True if nothing lies beside the screen: the page does not scroll sideways, nor does a part of it."""
    wide: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("body, body *")].filter(one => {
            const box = one.getBoundingClientRect(), style = getComputedStyle(one);
            const scrolls = one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 1
                && style.display !== "inline";
            for (let up = one; up; up = up.parentElement)
                if (getComputedStyle(up).clipPath !== "none") return false;  // for screen readers alone
            return box.width > 1 && (scrolls || box.right > innerWidth + 1);
        }).map(one => one.outerHTML.slice(0, 150))"""
    )
    assert not wide, wide
    inner: bool = page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
    return inner


def picture(page: Page, folder: Path, name: str) -> Path:
    """A picture of what is on the screen; into docs/pictures too, if UPDATE_PICTURES is set."""
    path = folder / f"{name}.png"
    page.screenshot(path=path, animations="disabled", caret="hide")
    assert path.stat().st_size < LARGEST_BYTES, f"{path.name} has {path.stat().st_size} bytes"
    if os.environ.get("UPDATE_PICTURES"):
        PICTURES.mkdir(exist_ok=True)
        shutil.copyfile(path, PICTURES / path.name)
    return path
