"""The statuses of a payment stand in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from support.references import files, text_of

from streamsocial_billing.domain.statuses import BY_HAND, FINAL, NOT_STORED, OPEN, STATUSES, WITHOUT_MONEY

LISTS = {frozenset(one) for one in (BY_HAND, FINAL, NOT_STORED, OPEN, STATUSES, WITHOUT_MONEY)}


def lists() -> Iterator[tuple[str, int]]:
    """Where a list that statuses.py has is written out once more, outside tests."""
    for file in files():
        if file.suffix != ".py" or "tests" in file.parts or file.name == "statuses.py":
            continue
        for node in ast.walk(ast.parse(text_of(file))):
            if isinstance(node, ast.Tuple | ast.List | ast.Set):
                said = {one.value for one in node.elts if isinstance(one, ast.Constant)}
                if len(said) == len(node.elts) and said in LISTS:
                    yield str(file), node.lineno


def test_no_list_of_statuses_is_written_twice() -> None:
    """A status that is added has one place."""
    assert [] == list(lists())


def test_what_the_decision_does_not_store_is_what_readers_expect_no_entry_of() -> None:
    """Each reason that a rejection with `stored=False` gives."""
    (decision,) = (file for file in files() if file.name == "decision.py")
    given = {
        node.args[0].value
        for node in ast.walk(ast.parse(text_of(decision)))
        if isinstance(node, ast.Call) and any(ast.unparse(one) == "stored=False" for one in node.keywords)
        if node.args and isinstance(node.args[0], ast.Constant)
    }
    assert set(NOT_STORED) == given
