"""The declarations of the tables."""

import re
from pathlib import Path

import faust
import pytest

import tables
from streamsocial_billing.app import create_app
from streamsocial_billing.settings import Settings
from tables.payments import declare_payments, payment_key

FOLDER = Path(tables.__file__).parent


@pytest.fixture
def app() -> faust.App:
    return faust.App("shop", broker="kafka://127.0.0.1:1", store="memory://", autodiscover=False)


def test_the_tables_have_the_names_that_others_rely_on(app: faust.App) -> None:
    """Changelogs keep Faust's usual names, compacted, with as many partitions as asked for."""
    for name, declare in tables.ROWS.items():
        table = declare(app, partitions=5)

        assert (name, 5) == (table.name, table.partitions)
        assert f"shop-{name}-changelog" == table.changelog_topic_name
        assert table.changelog_topic.compacting
        assert app.tables[name] is table


def test_the_one_list_names_every_file_of_the_folder() -> None:
    """A table that is not listed would be audited by nobody."""
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__", "rows"}
    assert files == set(tables.ALL)
    assert len(files) == len(tables.ALL)


def test_the_app_declares_the_tables_of_the_list_and_no_other() -> None:
    """What is in no list has no place to be declared."""
    app = create_app(Settings(), {})
    assert set(tables.ALL) == set(app.tables)


def test_the_readme_lists_every_table() -> None:
    """In the row of their changelogs."""
    readme = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    row = next(line for line in readme.splitlines() if line.startswith("| `{app id}-{table}-changelog` |"))
    assert sorted(tables.ALL) == sorted(re.findall(r"`(\w+)`", row))


def test_options_reach_the_table(app: faust.App) -> None:
    """The app, not this folder, chooses how a table is kept."""
    assert 7 == declare_payments(app, recovery_buffer_size=7).recovery_buffer_size


def test_a_payment_key_is_user_then_payment() -> None:
    """Both ids without a slash, so no two payments share a key."""
    assert "u1/p1" == payment_key("u1", "p1")
