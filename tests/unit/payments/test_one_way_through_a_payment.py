"""The shape of the payment handlers (decision 63), held by their source: one place for each phase."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamsocial_billing

APP = Path(streamsocial_billing.__file__).parent
ROOMS = ("payments", "operations", "subscriptions")
HANDLERS = sorted(path for room in ROOMS for path in (APP / room).glob("*.py"))


def calls(path: Path, *names: str) -> Iterator[ast.Call]:
    """The calls of methods with these names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names:
            yield node


def test_one_sequence_calls_a_gateway() -> None:
    """Charge, refund and question go through `payments/calling.py`; nobody else gives a time-out."""
    found = {
        path.relative_to(APP).as_posix()
        for path in HANDLERS for call in calls(path, "charge", "refund", "find")
        if any(keyword.arg == "timeout_s" for keyword in call.keywords)
    }  # fmt: skip
    assert {"payments/calling.py"} == found


def test_one_place_writes_what_a_payment_changes() -> None:
    """In the room of payments only the unit writer sends or writes, dead letters apart."""
    senders = {path.name for path in HANDLERS if path.parent.name == "payments" and written_by(path)}
    assert {"unit_writer.py", "bad_input.py"} == senders


def written_by(path: Path) -> bool:
    """True if it sends a record, or sets or deletes a key of a table."""
    if any(calls(path, "put_into_unit", "set_raw")):
        return True
    stored = (
        node for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del)
    )  # fmt: skip
    return any("tables" in ast.unparse(node.value) for node in stored)


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.name)
def test_a_constructor_sets_up_itself_and_nothing_else(path: Path) -> None:
    """It neither adds itself to a list of another object nor to one of its class."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            for line in node.body:
                assert is_its_own(line), ast.unparse(line)


def is_its_own(line: ast.stmt) -> bool:
    """True for a docstring, for what sets a name or a field of `self`, for the constructor above."""
    if isinstance(line, ast.Assign | ast.AnnAssign):
        targets = line.targets if isinstance(line, ast.Assign) else [line.target]
        parts = [part for one in targets for part in (one.elts if isinstance(one, ast.Tuple) else [one])]
        return all(ast.unparse(one).startswith("self.") or isinstance(one, ast.Name) for one in parts)
    return isinstance(line, ast.Expr) and ast.unparse(line).startswith(("'", "super()"))
