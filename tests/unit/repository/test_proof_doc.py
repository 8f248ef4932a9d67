"""The page of proof names tests and mutants that exist, for the sentences that the README claims."""

from __future__ import annotations

import re
from pathlib import Path

from torture.mutants import MUTANTS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "proof.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_claims_of_the_readme_are_the_chapters_of_the_proof() -> None:
    """Each sentence of the claim, word for word, no more and no less."""
    claimed = re.findall(r"^- \*\*(.+?)\.\*\* (.+)$", README.split("## Two commands")[0], re.MULTILINE)
    proven = re.findall(r"^## (.+)\n\n> (.+)$", PAGE, re.MULTILINE)
    assert [name for name, _ in claimed] == [name for name, _ in proven]
    for (_, sentence), (_, quoted) in zip(claimed, proven, strict=True):
        assert quoted.rstrip(".") in sentence


def test_every_named_test_exists() -> None:
    """File and function."""
    named = re.findall(r"`((?:packages/[\w-]+/)?tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 15
    for path, function in named:
        assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{function}"


def test_every_mutant_breaks_a_sentence_of_the_claim() -> None:
    """All of them are on the page, under their names."""
    assert sorted(MUTANTS) == sorted(re.findall(r"\| `(\d+-[\w-]+)` \|", PAGE))
