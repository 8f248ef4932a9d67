"""What a worker that is alone in its process sets for the whole of it: crashes, heap, collector, exit."""

import atexit
import ctypes
import faulthandler
import gc
import logging
import os
import sys
import threading

logger = logging.getLogger(__package__)

EXIT_S = 2.0  # how long threads that wait for the broker may hold up the exit once all else has ended
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # of glibc's malloc.h
ARENAS = 2
ALONE_BYTES = 128 * 1024  # an allocation so large has pages of its own, which go back when it is freed


def show_crashes() -> None:
    """Have a crash in native code (SIGSEGV, SIGABRT, ...) write what each Python thread was at to stderr.

    It costs nothing while nothing crashes. `-X faulthandler` and PYTHONFAULTHANDLER may have done it before.
    """
    if not faulthandler.is_enabled():
        faulthandler.enable()


def bound_the_heap() -> None:
    """Let glibc keep few heaps, and nothing large in them; what the environment sets (`MALLOC_...`) stays.

    By itself it gives threads heaps of their own, up to eight a core, and keeps allocations of megabytes in
    them once it has seen one freed, as an answer to a fetch is: a quarter of the memory of a long backlog.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc; musl and macOS have none
        if "MALLOC_ARENA_MAX" not in os.environ:
            mallopt(M_ARENA_MAX, ARENAS)
        if "MALLOC_MMAP_THRESHOLD_" not in os.environ:
            mallopt(M_MMAP_THRESHOLD, ALONE_BYTES)


def tune_the_collector() -> None:
    """Look for cycles seldom: a backlog keeps many objects alive, units themselves are freed by counting.

    Twenty thousand waiting units are three hundred thousand objects. At a threshold of 50 000 the collector
    went through them at every turn, found nothing, and took 12 us of an event's 117, 60 ms at a time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(400_000, 20, 50)


def bound_the_exit(code: int) -> None:
    """Let Python wait for its threads, but not for long: what they are at, the next start makes good.

    The process ends with `code`, without what C++ does at an exit. A task that Kafka leaves without an answer
    has its databases open, and RocksDB's own threads use objects that an exit destroys (SIGSEGV).
    """

    def leave() -> None:
        flush_the_log()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

    def give_up() -> None:
        logger.warning("exiting without waiting for Kafka any longer than %.0f s", EXIT_S)
        leave()

    timer = threading.Timer(EXIT_S, give_up)
    timer.daemon = True
    timer.start()
    atexit.register(leave)  # Python calls it when its threads have ended


def flush_the_log() -> None:
    """A log may write in a thread of its own."""
    for handler in logging.getLogger().handlers:
        handler.flush()
