"""Faust's store plug-in: names the databases of a table."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from faust.stores.base import Store as FaustStore


class Store(FaustStore[Any, Any]):
    """Faust's store plug-in: names the databases of one table.

    Reading and writing go through `Table`, which knows the handler's unit; the databases themselves are
    opened for each epoch of a task by the layer.
    """

    def path(self, partition: int) -> Path:
        """The database folder of a partition, where Faust's own RocksDB store has it."""
        return Path(self.app.conf.tabledir) / f"{self.table_name}-{partition}.db"

    def persisted_offset(self, tp: Any) -> int | None:
        """Faust's recovery asks this; ours keeps the offset in each database."""
        return None

    def reset_state(self) -> None:
        """Remove the local databases (`faust reset`); they come back from the changelog."""
        for path in Path(self.app.conf.tabledir).glob(f"{self.table_name}-*.db"):
            shutil.rmtree(path, ignore_errors=True)

    def apply_changelog_batch(self, batch: Any, to_key: Any, to_value: Any) -> None:
        """Refuse: only the layer's recovery writes."""
        raise NotImplementedError("the layer's own recovery applies changelogs")

    async def backup_partition(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup")

    def restore_backup(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: the changelog is the backup."""
        raise NotImplementedError("the changelog is the backup")

    def __getitem__(self, key: Any) -> Any:
        raise NotImplementedError("read through the table")

    def __setitem__(self, key: Any, value: Any) -> None:
        raise NotImplementedError("write through the table")

    def __delitem__(self, key: Any) -> None:
        raise NotImplementedError("write through the table")

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("read through the table")

    def __len__(self) -> int:
        raise NotImplementedError("read through the table")
