"""The order of a commit is written once: docs and code say the same."""

from __future__ import annotations

import re
from pathlib import Path

from faust_exactly_once.commit import Committer, TransactionalProducer

VERBS = ["begin_transaction", "send", "send_changes", "confirm", "add_offsets", "commit_transaction"]
ROOT = Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "packages/faust-exactly-once"
CONTRACT = (PACKAGE / "docs/contract.md").read_text(encoding="utf-8")
DOC = (ROOT / "docs/exactly-once.md").read_text(encoding="utf-8")
SOURCE = (PACKAGE / "src/faust_exactly_once/commit.py").read_text(encoding="utf-8")


def numbered(text: str) -> list[tuple[str, str]]:
    """The items of a numbered list, a bracket around one left out."""
    found = re.findall(r"^\s*(\()?(\d+)\. (.+?)\s*$", text, flags=re.MULTILINE)
    return [(number, item.removesuffix(")") if bracket else item) for bracket, number, item in found]


def section(title: str, page: str = DOC) -> str:
    """What stands under a heading of the page."""
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_page_numbers_the_commit_as_the_code_does() -> None:
    """Steps 1 to 8, word for word."""
    steps = numbered(section("The commit"))
    assert numbered(Committer.commit.__doc__ or "") == steps
    assert numbered(section("The commit", CONTRACT)) == steps
    assert [str(number) for number in range(1, 9)] == [number for number, _ in steps]


def test_the_body_of_the_commit_carries_its_numbers() -> None:
    """Each step of the thread's part, once, in order, by the verb of the protocol."""
    body = SOURCE.split('probe("before_send")')[1].split("def _positions")[0]
    assert [*VERBS, "apply"] == re.findall(r"\b(?:producer|stores)\.(\w+)\(", body)
    assert ["1", "2", "3", "4", "5", "6", "7"] == re.findall(r"# (\d)$", body, flags=re.MULTILINE)


def test_the_producer_numbers_its_verbs_as_the_commit_does() -> None:
    """Whoever reads one finds the step in the other."""
    docs = [getattr(TransactionalProducer, verb).__doc__ or "" for verb in VERBS]
    assert [f"{step}: " for step in range(1, 7)] == [doc[:3] for doc in docs]


def test_the_page_names_every_crash_point() -> None:
    """Each probe of the code has its row among the states that a crash leaves behind."""
    layer = PACKAGE / "src/faust_exactly_once"
    code = "".join(file.read_text(encoding="utf-8") for file in sorted(layer.glob("*.py")))
    points = set(re.findall(r'probe\((?:assigned, )?"(\w+)"\)', code))
    table = section("Every state a crash can leave behind")
    rows = set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE))
    assert points == rows


def test_the_page_has_the_thirteen_points() -> None:
    """The contract's points keep their numbers: code refers to them."""
    assert [str(n) for n in range(1, 14)] == [number for number, _ in numbered(section("The contract"))]
