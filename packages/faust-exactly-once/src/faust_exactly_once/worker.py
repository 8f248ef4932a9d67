"""Faust's worker: it checks before it starts, says in one line why it ends."""

import gc
import logging
import os
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import faust
from confluent_kafka import KafkaException

from .counts import reason
from .declarations import source_topics
from .errors import ExactlyOnceError
from .layer import Layer
from .start import prepare
from .topic import outputs
from .worker_folder import check_folder, folder_of_its_own

logger = logging.getLogger(__package__)

EXIT_S = 2.0  # how long threads that wait for the broker may hold up the exit once all else has ended


class Worker(faust.Worker):
    """Faust's worker with checks before the start; a refusal is one line, never a stack trace."""

    _why_stopped = "nothing more to do"

    def _schedule_shutdown(self, signal: Any) -> None:
        """Say why, then stop in order."""
        if not self._signal_stop_time:
            logger.info("stopping: %s received", signal.name, extra={"signal": signal.name})
            self._why_stopped = f"{signal.name} received"
        super()._schedule_shutdown(signal)

    def execute_from_commandline(self) -> NoReturn:
        """Check, then run until stopped.

        Raises:
            SystemExit: 0 after a clean stop, 1 after a refusal or a failure that the layer named.
        """
        folder = Path(self.app.conf.datadir)
        try:
            check_folder(folder)
            with folder_of_its_own(folder):
                prepare(self.app)
                super().execute_from_commandline()
        except (ExactlyOnceError, OSError, KafkaException) as exc:
            _say_and_exit(exc)
        except SystemExit as ended:
            if Layer.of(self.app).options.owns_process:
                _bound_the_exit(ended.code)
            self._say_stopped()
            if isinstance(self.crash_reason, ExactlyOnceError):
                _say_and_exit(self.crash_reason)  # mode has logged it, long before its last lines
            raise
        self._say_stopped()
        raise SystemExit(0)

    def _say_stopped(self) -> None:
        crash = self.crash_reason
        if crash is not None:
            logger.critical("stopped: %s", reason(crash), extra={"error": type(crash).__name__})
        else:
            logger.info("stopped: %s", self._why_stopped)

    async def on_first_start(self) -> None:
        """Learn about every topic before services start."""
        await super().on_first_start()
        layer = Layer.of(self.app)
        if layer.options.owns_process:
            _tune_the_collector()
        await layer.learn(_all_topics(self.app))


def _bound_the_exit(code: object) -> None:
    """Let Python wait for its threads, but not for long: what they are at, the next start makes good."""

    def give_up() -> None:
        logger.warning("exiting without waiting for Kafka any longer than %.0f s", EXIT_S)
        _flush_the_log()
        os._exit(code if isinstance(code, int) else code is not None)

    timer = threading.Timer(EXIT_S, give_up)
    timer.daemon = True
    timer.start()


def _flush_the_log() -> None:
    """A log may write in a thread of its own."""
    for handler in logging.getLogger().handlers:
        handler.flush()


def _tune_the_collector() -> None:
    """Look for cycles seldom: a backlog keeps many objects alive, units themselves are freed by counting.

    Without a delay in the handlers it took 164 us an event with Python's own thresholds, 132 with these.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _all_topics(app: Any) -> Iterable[str]:
    changelogs = [str(table.changelog_topic_name) for table in app.tables.values()]
    return [*source_topics(app), *changelogs, *(topic.topics[0] for topic in outputs(app))]


def _say_and_exit(exc: BaseException) -> NoReturn:
    text = " ".join(str(exc).split())
    _flush_the_log()  # this is the last word
    sys.stderr.write(f"{Path(sys.argv[0]).name}: {text}\n")
    raise SystemExit(1)
