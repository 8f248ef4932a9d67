"""Faust's worker: it checks before it starts, says in one line why it ends."""

import logging
import sys
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
from .whole_process import bound_the_exit, bound_the_heap, flush_the_log, show_crashes, tune_the_collector
from .worker_folder import check_folder, folder_of_its_own

logger = logging.getLogger(__package__)


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
            if Layer.of(self.app).options.owns_process:
                show_crashes()
                bound_the_heap()
            with folder_of_its_own(folder):
                prepare(self.app)
                super().execute_from_commandline()
        except (ExactlyOnceError, OSError, KafkaException) as exc:
            _say_and_exit(exc)
        except SystemExit as ended:
            crash = self.crash_reason
            if Layer.of(self.app).options.owns_process:
                named = isinstance(crash, ExactlyOnceError)
                bound_the_exit(1 if named else _as_number(ended.code))
            self._say_stopped()
            if isinstance(crash, ExactlyOnceError):
                _say_and_exit(crash)  # mode has logged it, long before its last lines
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
            tune_the_collector()
        await layer.learn(_all_topics(self.app))


def _as_number(code: object) -> int:
    """What a process that ends with this SystemExit has as its exit code."""
    return code if isinstance(code, int) else int(code is not None)


def _all_topics(app: Any) -> Iterable[str]:
    changelogs = [str(table.changelog_topic_name) for table in app.tables.values()]
    return [*source_topics(app), *changelogs, *(topic.topics[0] for topic in outputs(app))]


def _say_and_exit(exc: BaseException) -> NoReturn:
    text = " ".join(str(exc).split())
    flush_the_log()  # this is the last word
    sys.stderr.write(f"{Path(sys.argv[0]).name}: {text}\n")
    raise SystemExit(1)
