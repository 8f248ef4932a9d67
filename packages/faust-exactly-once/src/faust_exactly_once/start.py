"""What is checked, created, refused before a worker starts."""

import fcntl
import gc
import logging
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import faust
from confluent_kafka import KafkaException
from confluent_kafka.admin import NewTopic

from .agent import Agent
from .answers import START_S, ask_again
from .assignor import TaskAssignor
from .cluster import AS_BROKERS, Cluster, TopicFacts
from .counts import reason
from .errors import ExactlyOnceError, KafkaUnavailable, SetupRefused
from .layer import Layer, partitions_changed
from .membership import check_layout
from .options import SCHEME
from .router import Router
from .stream import Stream
from .table import Table
from .table_manager import TableManager
from .topic import Topic, outputs

logger = logging.getLogger(__package__)

EXIT_S = 2.0  # how long threads that wait for the broker may hold up the exit once all else has ended
FOLDER_WAIT_S = 5.0  # how long a worker that ends right now may still hold the data folder
OWN_CLASSES = {
    "Agent": Agent, "Stream": Stream, "Topic": Topic, "Table": Table, "TableManager": TableManager,
    "PartitionAssignor": TaskAssignor, "Router": Router,
}  # fmt: skip
BeforeStart = Callable[[Cluster], None]
_before_start: WeakKeyDictionary[Any, BeforeStart] = WeakKeyDictionary()
_ports: WeakKeyDictionary[Any, socket.socket] = WeakKeyDictionary()


def before_start(app: Any, call: BeforeStart) -> None:
    """Let the application create or check its own topics, right after the broker was found."""
    _before_start[app] = call


def prepare(app: Any) -> None:
    """Check everything that can be checked before the event loop runs.

    Raises:
        SetupRefused: with one sentence that names what to do.
        KafkaUnavailable: no broker answers.
    """
    layer = Layer.of(app)
    _refuse_what_breaks_the_contract(app)
    _check_folder(Path(app.conf.tabledir))
    if app.conf.web_enabled:
        _keep_port(app, _bind(app.conf.web_bind, app.conf.web_port))
    check_layout()
    _check_broker(layer)
    _check_session_timeout(app, layer)
    if app in _before_start:
        ask_again(lambda: _before_start[app](layer.cluster), START_S, say_no_answer)
    layer.partitions = ask_again(lambda: _create_changelogs(app, layer), START_S, say_no_answer)


def say_no_answer(text: str) -> None:
    """Into the log: why the start takes longer."""
    logger.warning("%s", text)


def _refuse_what_breaks_the_contract(app: Any) -> None:
    """The part of point 12 that can be seen in the declarations."""
    conf = app.conf
    if str(conf.processing_guarantee.value) != "exactly_once":
        raise SetupRefused('set processing_guarantee="exactly_once"')
    if {SCHEME} != {url.scheme for url in [*conf.broker, conf.store]}:
        raise SetupRefused(f"broker and store must be {SCHEME}://, take them from exactly_once.settings()")
    if conf.producer_threaded:
        raise SetupRefused("producer_threaded sends everything outside transactions: switch it off")
    if conf.table_standby_replicas:
        raise SetupRefused("table_standby_replicas must be 0")
    if not conf.topic_disable_leader:
        raise SetupRefused("the leader topic is not part of a task: set topic_disable_leader=True")
    if conf.autodiscover:
        raise SetupRefused(
            "autodiscover skips modules that cannot be imported, agents and all: import them, leave it off"
        )
    for setting, own in OWN_CLASSES.items():
        if not issubclass(getattr(conf, setting), own):
            raise SetupRefused(
                f"{setting} must be the layer's, or made from it: take it from exactly_once.settings()"
            )
    readers: dict[str, str] = {}
    for name, agent in app.agents.items():
        if agent.concurrency != 1:
            raise SetupRefused(
                f"agent {name}: concurrency must be 1, batches run their handlers concurrently"
            )
        channel = agent.channel
        if not isinstance(channel, Topic) or channel.pattern:
            raise SetupRefused(f"agent {name} must read one named topic of this app")
        if agent.isolated_partitions:
            raise SetupRefused(f"agent {name}: isolated_partitions would split a task over several agents")
        for topic in channel.topics:
            if topic in readers:
                raise SetupRefused(f"agents {readers[topic]} and {name} both read {topic}")
            readers[topic] = name
    for name, table in app.tables.items():
        if not isinstance(table, Table) or table.window is not None or table.use_partitioner:
            raise SetupRefused(
                f"table {name}: set, global, windowed, use_partitioner tables are not supported"
            )


def _source_topics(app: Any) -> list[str]:
    return sorted({topic for agent in app.agents.values() for topic in agent.channel.topics})


@contextmanager
def folder_of_its_own(
    folder: Path, advice: str = "give each worker its own --datadir"
) -> Iterator[None]:
    """Hold the data folder for this process alone; the operating system frees it however the process ends.

    `advice` is what to do while a worker holds it. RocksDB has a lock for each database too, but meets it
    only when a task opens.

    Raises:
        SetupRefused: another worker holds it for more than 5 s.
        OSError: the folder cannot be used.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "worker.lock").open("a+", encoding="ascii") as lock:
        deadline = time.monotonic() + FOLDER_WAIT_S
        while not _is_locked(lock.fileno()):
            if time.monotonic() > deadline:
                lock.seek(0)
                pid = lock.read().strip() or "?"
                raise SetupRefused(
                    f"the data folder {folder} is in use by the worker with pid {pid}: {advice}"
                )
            time.sleep(0.05)
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield


def _is_locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as exc:
        raise SetupRefused(
            f"the data folder {folder} cannot be written ({_why(exc)}): choose another --datadir"
        ) from exc


def _keep_port(app: Any, bound: socket.socket) -> None:
    """Hold the port for a web driver that knows `take_port`; Faust's own binds anew."""
    if getattr(app.web, "takes_port", False):
        _ports[app] = bound
    else:
        bound.close()


def take_port(app: Any) -> socket.socket | None:
    """The listening socket of the web port, taken by `prepare`; None if there is none (any more)."""
    return _ports.pop(app, None)


def _bind(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), reuse_port=False)
    except OSError as exc:
        raise SetupRefused(
            f"web port {port} on {host} cannot be used ({_why(exc)}): choose another --web-port"
        ) from exc


def _why(exc: OSError) -> str:
    """The system's reason, without what Python adds to it."""
    return os.strerror(exc.errno) if exc.errno and exc.errno > 0 else str(exc)


def _check_broker(layer: Layer) -> None:
    try:
        layer.cluster.id()
    except (KafkaUnavailable, KafkaException) as exc:
        at = layer.options.client_config.get("bootstrap.servers")
        advice = layer.options.broker_advice
        raise KafkaUnavailable(f"no Kafka broker answers at {at} ({exc}): {advice}") from exc


def _check_session_timeout(app: Any, layer: Layer) -> None:
    """Refuse what the broker would refuse at every join; one that hides its settings is believed."""
    try:
        low, high = layer.cluster.session_bounds_ms()
    except (KafkaUnavailable, KafkaException, KeyError):
        return
    wanted = int(app.conf.broker_session_timeout * 1000)
    if not low <= wanted <= high:
        raise SetupRefused(
            f"the broker takes session time-outs from {low} to {high} ms, not {wanted} ms: "
            f"{layer.options.session_advice}"
        )


def _create_changelogs(app: Any, layer: Layer) -> int:
    """Create missing changelogs with the partition count of the sources.

    Returns:
        how many partitions, that is tasks, there are.
    """
    cluster, sources = layer.cluster, _source_topics(app)
    names = [str(table.changelog_topic_name) for table in app.tables.values()]
    facts = cluster.topics([*sources, *names], expected=sources)
    absent = sorted(set(sources) - set(facts))
    if absent:
        raise SetupRefused(f"source topics {absent} do not exist: create them first")
    counts = {topic: facts[topic].partitions for topic in sources}
    if len(set(counts.values())) != 1:
        raise SetupRefused(f"source topics share tasks, so their partition counts must agree: {counts}")
    partitions = counts[sources[0]]
    replicas = app.conf.topic_replication_factor or AS_BROKERS
    missing = [
        NewTopic(name, partitions, replicas, config={"cleanup.policy": "compact"})
        for name in names if name not in facts
    ]  # fmt: skip
    cluster.create(missing, say_no_answer, layer.options.replication_advice)
    _check_changelogs(cluster.facts_of(names), sources[0], partitions)
    return partitions


def _check_changelogs(facts: dict[str, TopicFacts], source: str, partitions: int) -> None:
    for name, fact in facts.items():
        if fact.partitions != partitions:
            raise SetupRefused(f"changelog {name}: {partitions_changed(source, fact.partitions, partitions)}")
        if fact.config.get("cleanup.policy") != "compact":
            raise SetupRefused(
                f"changelog {name} must have cleanup.policy=compact: deleting it loses table state"
            )


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
            _check_folder(folder)
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
            _calm_the_collector()
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


def _calm_the_collector() -> None:
    """Look for cycles seldom: a backlog keeps many objects alive, units themselves are freed by counting.

    Without a delay in the handlers it took 164 us an event with Python's own thresholds, 132 with these.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _all_topics(app: Any) -> Iterable[str]:
    changelogs = [str(table.changelog_topic_name) for table in app.tables.values()]
    return [*_source_topics(app), *changelogs, *(topic.topics[0] for topic in outputs(app))]


def _say_and_exit(exc: BaseException) -> NoReturn:
    text = " ".join(str(exc).split())
    _flush_the_log()  # this is the last word
    sys.stderr.write(f"{Path(sys.argv[0]).name}: {text}\n")
    raise SystemExit(1)
