"""The declarations of the tables."""

import ast
from pathlib import Path

import faust
import pytest

import tables
from tables.charges import declare_charges
from tables.payments import declare_payments, payment_key
from tables.subscriptions import declare_subscriptions


@pytest.fixture
def app() -> faust.App:
    return faust.App("shop", broker="kafka://127.0.0.1:1", store="memory://", autodiscover=False)


def test_the_tables_have_the_names_that_others_rely_on(app: faust.App) -> None:
    """Changelogs keep Faust's usual names, compacted, with as many partitions as asked for."""
    declared = (declare_payments, "payments"), (declare_charges, "charges")
    for declare, name in (*declared, (declare_subscriptions, "subscriptions")):
        table = declare(app, partitions=5)

        assert (name, 5) == (table.name, table.partitions)
        assert f"shop-{name}-changelog" == table.changelog_topic_name
        assert table.changelog_topic.compacting
        assert app.tables[name] is table


def test_options_reach_the_table(app: faust.App) -> None:
    """The app, not this folder, chooses how a table is kept."""
    assert 7 == declare_payments(app, recovery_buffer_size=7).recovery_buffer_size


def test_a_payment_key_is_user_then_payment() -> None:
    """Both ids without a slash, so no two payments share a key."""
    assert "u1/p1" == payment_key("u1", "p1")


def test_the_folder_imports_faust_only() -> None:
    """`tables` is below everything and never pulls in the app."""
    folder = Path(tables.__file__).parent
    imported = set()
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
            elif isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}

    assert {"__future__", "operator", "typing", "faust"} == imported
