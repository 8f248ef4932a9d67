"""Tables of counters: numbers of a task that every unit may add to, whatever its key."""

from typing import Any, NoReturn

from .counters import RECORD, read
from .errors import NoUnit
from .table import Table
from .units import Counted, current_unit, find_unit


class Counters(Table):
    """Whole numbers by name, summed up for each task; changelog-backed as any table.

    Units of different keys run side by side, so a unit may not read what another one changes; but additions
    may come in any order. A unit only says what it adds; a commit adds up what its units said, and writes
    one record. So the numbers are exactly the fold of the committed units, and cost one record a commit.

    Names are few: each record has them all.
    """

    def add(self, name: str, number: int = 1) -> None:
        """Add to a number in the handler's unit; a unit that is emptied has added nothing.

        Raises:
            NoUnit: outside a handler.
            TypeError: not a whole number, or a name that is no text: in the commit it would stop the task.
        """
        self.add_all(((name, number),))

    def add_all(self, counts: Counted) -> None:
        """Add to several numbers at once: names with what is added to each; raises as `add`."""
        for name, number in counts:
            if type(number) is not int or type(name) is not str:
                raise TypeError(f"{self.name} counts whole numbers under names: {name!r}, {number!r}")
        unit = find_unit()
        if unit is None or unit.finished:
            unit = current_unit()  # which says why there is none
        unit.counted += ((self.name, counts),)

    def of(self, partition: int) -> dict[str, int]:
        """The committed numbers of a task; names that were never added to are left out.

        Raises:
            LookupError: if this worker does not hold the partition now.
        """
        return read(self._the_layer().committed_value(partition, self.name, RECORD))

    def _refuse_keys(self, *_: Any, **__: Any) -> NoReturn:
        """No key owns a number of the task: a unit cannot read it, nor set it."""
        raise NoUnit(f"{self.name} holds counters: a unit adds to them, `of` reads a task's")

    get = raw = set_raw = __getitem__ = __setitem__ = __delitem__ = __contains__ = _refuse_keys


def counters(app: Any, name: str, *, help: str = "", **options: Any) -> Counters:  # noqa: A002 - Faust's name
    """Declare a table of counters, as `app.Table` declares others."""
    table = Counters(app, name=name, help=help, beacon=app.tables.beacon, **options)
    app.tables.add(table)
    return table
