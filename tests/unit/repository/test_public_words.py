"""What others store, scrape, call or grep: nothing of what the release before had is gone."""

from __future__ import annotations

import json
from functools import cache

import pytest
from support.public_words import ROOT, WORD, public_words, spoken, texts
from support.releases import releases

*_, LAST = releases()
LIST = ROOT / f"tests/upgrade/words-{LAST}.json"
BEFORE: dict[str, list[str]] = json.loads(LIST.read_text(encoding="utf-8"))
SPOKEN = ("words_of_pages", "fields_of_rows")
"""Kinds whose words count as there wherever the product has them."""


@cache
def now() -> dict[str, list[str]]:
    """The words of this checkout."""
    return public_words()


@pytest.mark.parametrize("kind", [kind for kind in BEFORE if kind not in (*SPOKEN, "texts")])
def test_nothing_that_the_release_before_had_is_gone(kind: str) -> None:
    """Topics, tables, probes, URL schemes, commands, pages, metrics with their labels, settings."""
    assert BEFORE[kind]
    assert [] == sorted(set(BEFORE[kind]) - set(now()[kind]))


@pytest.mark.parametrize("kind", SPOKEN)
def test_every_word_that_the_pages_had_is_spoken(kind: str) -> None:
    """Statuses, reasons, fields, headers, keys of the status line: each is a text or a field."""
    assert len(BEFORE[kind]) > 50
    assert [] == sorted(set(BEFORE[kind]) - spoken())


def test_every_part_of_an_id_or_a_protocol_is_there() -> None:
    """Transactional ids, the group protocol, references, headers."""
    assert [] == [one for one in BEFORE["texts"] if not any(one in text for text in texts())]


def test_a_list_names_words() -> None:
    """Each as it is looked for."""
    assert [] == [word for kind in SPOKEN for word in BEFORE[kind] if not WORD.fullmatch(word)]
