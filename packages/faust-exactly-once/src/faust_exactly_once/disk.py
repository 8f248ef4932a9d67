"""The disk as the layer uses it: RocksDB databases, each in a folder of its own."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from rocksdict import BlockBasedOptions, Cache, Options, Rdict, WriteBatch

CACHE_BYTES: Final = 32 * 1024 * 1024
"""Read blocks held in memory by all databases of the process together."""
BLOOM_BITS: Final = 10
"""For each key: of a hundred looks for a key that is not there one reads a block (RocksDB's own default)."""


def open_database(path: Path) -> Rdict:
    """Open a database, make one where there is none; raises Exception with RocksDB's words."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_size(3 * 1024 * 1024)  # times tables times partitions
    options.set_max_open_files(256)
    options.set_keep_log_file_num(2)
    options.set_stats_dump_period_sec(0)  # nobody reads them, and a thread of its own would write them
    options.set_stats_persist_period_sec(0)
    options.set_block_based_table_factory(_blocks())
    return Rdict(str(path), options)


def _blocks() -> BlockBasedOptions:
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(BLOOM_BITS, False)  # False: whole files, not block by block
    blocks.set_block_cache(_cache())
    return blocks


@cache
def _cache() -> Cache:
    return Cache(CACHE_BYTES)


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
