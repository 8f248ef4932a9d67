"""What a browser test does on a machine without a browser."""

from __future__ import annotations

import pytest
from _pytest.outcomes import Failed, Skipped
from support import browser


def test_without_chromium_a_test_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has none runs the rest, and reads what to install."""
    monkeypatch.setattr(browser, "CHROMIUM", None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(Skipped, match="apt-get install chromium"):
        browser.chromium_or_skip()


def test_without_chromium_a_ci_run_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """There nothing is skipped in silence."""
    monkeypatch.setattr(browser, "CHROMIUM", None)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(Failed, match="apt-get install chromium"):
        browser.chromium_or_skip()
