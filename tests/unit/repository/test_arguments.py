"""Whoever reads a call sees what each value is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Final

from support.references import files, text_of

MOST: Final = 5
"""Arguments in a row without a name."""
FOLDERS: Final = {"streamsocial_billing", "tables", "showcase", "lab", "torture", "benchmarks", "broker"}
OF_OTHERS: Final = {"LogRecord", "format", "info", "warning", "error", "log", "add_row"}
"""Functions of Python and its libraries, or such that take any number of the same."""
BY_POSITION: Final = {
    "streamsocial_billing/domain/payment_entry.py: SettledRow",
    "streamsocial_billing/domain/payment_identity.py: _Canonical",
    "streamsocial_billing/payments/charge.py: ChargeRequest",
    "streamsocial_billing/payments/record_outcome.py: ChargeResult",
    "streamsocial_billing/payments/record_outcome.py: PaymentMetric",
    "streamsocial_billing/payments/unit_writer.py: Known",
}
"""Records of every charge: by their names they take several times as long. Recorded bytes hold the values."""


def long_calls() -> Iterator[str]:
    """Calls with more of them, outside tests and the layer."""
    for file in files():
        if file.suffix != ".py" or file.parts[0] not in FOLDERS:
            continue
        tree = ast.parse(text_of(file))
        variadic = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.args.vararg
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or len(node.args) <= MOST:
                continue
            name = ast.unparse(node.func).rpartition(".")[2]
            starred = any(isinstance(one, ast.Starred) for one in node.args)
            if name not in OF_OTHERS | variadic and not starred and f"{file}: {name}" not in BY_POSITION:
                yield f"{file}:{node.lineno}: {name}"


def test_more_than_five_arguments_are_given_by_name() -> None:
    """Two of one type in a row may change places, and nothing tells."""
    assert [] == list(long_calls())
