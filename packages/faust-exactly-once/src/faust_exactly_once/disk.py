"""The disk as the layer uses it: RocksDB databases, each in a folder of its own."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from rocksdict import Options, Rdict, WriteBatch


def open_database(path: Path) -> Rdict:
    """Open a database, make one where there is none; raises Exception with RocksDB's words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(4 * 1024 * 1024)  # times tables times partitions
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    return Rdict(str(path), options)


@dataclass(frozen=True, slots=True)
class Disk:
    """How databases are opened, written, removed.

    Attributes:
        open: a database by its folder; has the methods of `Rdict` that `PartitionStore` calls.
        batch: what is written at once, with `put` and `delete`.
        remove: a folder with all that is in it, as far as that is possible.
    """

    open: Callable[[Path], Any] = open_database
    batch: Callable[[], Any] = partial(WriteBatch, raw_mode=True)
    remove: Callable[[Path], None] = partial(shutil.rmtree, ignore_errors=True)


ROCKSDB: Final = Disk()
