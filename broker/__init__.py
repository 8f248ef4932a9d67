"""Run one real Apache Kafka node on loopback for development, tests or the showcase."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from confluent_kafka import KafkaException

from broker.clients import fresh_client
from broker.jars import BrokerError, java_command
from broker.ports import is_free, stable_ports
from processes.process import Process
from streamsocial_billing.locks import lock

__all__ = ["DEFAULT_PORT", "BrokerError", "LocalBroker"]

HERE = Path(__file__).resolve().parent
DEFAULT_PORT = 9092
START_ATTEMPTS = 3
STARTS_WITHIN_S = 180.0
"""On a machine that does much else a start took more than a minute; one that fails is heard at once."""
# longer than processes/guard.py needs to end the broker of a starter that has just died
LOCK_WAIT_S = 7.0
JVM_FLAGS = ("-Xms128m", "-Xmx1g", "-Xshare:auto", "-XX:-UsePerfData")
# measured over start and 400 transactions: 5.5 s of CPU, 10.9 s with the JIT that compiles everything twice
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
LASTING = ("-XX:+UseG1GC",)
LOG_FLAGS = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"]


class LocalBroker:
    """A Kafka broker of our own: its data in `data_dir`, its life bound to this process.

    `port`: None takes 9092, or a free port where 9092 is taken; 0 takes a free port; any other number must be
    free. Once it has answered, its port stays the same over its end and start(). `settings` replace lines of
    server.properties, with its words in braces. `lasting`: for a load of many minutes, the JVM takes its time
    to compile for speed; else it starts soon and takes little. Raises BrokerError with a one-line text.
    """

    _role = "broker"
    _jvm_flags: Sequence[str] = (*JVM_FLAGS, *SHORT_LIVED)

    def __init__(
        self, data_dir: Path | str, port: int | None = None, settings: Mapping[str, str] | None = None,
        *, lasting: bool = False,
    ) -> None:  # fmt: skip
        self.data_dir = Path(data_dir).absolute()
        self.port = port or 0
        self._wanted = port
        self._answered = False
        self._settings = dict(settings or {})
        if lasting:
            self._jvm_flags = (*JVM_FLAGS, *LASTING)
        self._process: Process | None = None
        self._lock: IO[str] | None = None

    @property
    def bootstrap(self) -> str:
        """Address for clients, `host:port`."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Address as Faust writes it, `kafka://host:port`."""
        return f"kafka://{self.bootstrap}"

    @property
    def pid(self) -> int:
        """Process id of the Java process itself."""
        return self._running_process().pid

    @property
    def running(self) -> bool:
        """True while the Java process lives (a paused one lives)."""
        return self._process is not None and self._process.running

    @property
    def exit_code(self) -> int | None:
        """That of the Java process where it ended by itself, below 0: the signal that killed it."""
        return self._process.code if self._process is not None else None

    @property
    def log_file(self) -> Path:
        """What the broker had to say: warnings and errors."""
        return self.data_dir / "broker.log"

    def start(self, timeout_s: float = STARTS_WITHIN_S) -> None:
        """Start and return once the broker answers a client; raises BrokerError after `timeout_s`."""
        if self.running:
            return
        self._refuse_data_of_a_cluster()
        jars = self._ready_jars()
        self._take_data_dir()
        try:
            for attempt in range(1, START_ATTEMPTS + 1):
                if self._try_to_start(jars, timeout_s, last=attempt == START_ATTEMPTS):
                    self._answered = True
                    return
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float = 15.0) -> None:
        """Stop in order (SIGTERM), by force (SIGKILL) after `timeout_s`; without effect when not running."""
        if self._process is not None:
            self._process.terminate(timeout_s)
        self._let_go()

    def ask_to_stop(self) -> None:
        """SIGTERM without waiting, without effect when not running; stop() waits."""
        if self._process is not None:
            self._process.ask_to_stop()

    def kill(self) -> None:
        """End it as a crash would (SIGKILL); start() then recovers from the same data."""
        if self._process is not None:
            self._process.kill()
        self._let_go()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing is answered."""
        self._running_process().pause()

    def resume(self) -> None:
        """Let a paused broker go on (SIGCONT); without effect when not running."""
        if self._process is not None:
            self._process.resume()

    def __enter__(self) -> LocalBroker:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ready_jars(self) -> Path:
        from broker.archive import ready_jars  # it runs a broker

        return ready_jars()

    def _running_process(self) -> Process:
        if self._process is None or not self._process.running:
            raise BrokerError(f"the {self._role} on {self.data_dir} is not running")
        return self._process

    def _try_to_start(self, jars: Path, timeout_s: float, *, last: bool) -> bool:
        """Return False where another process took the port between our choice of it and Java's binding."""
        self._choose_port()
        self._format(jars)
        self._launch(jars)
        try:
            self._wait_until_it_answers(timeout_s)
        except BrokerError:
            if last or self.running or "already in use" not in tail(self.log_file):
                raise
            return False
        return True

    def _refuse_data_of_a_cluster(self) -> None:
        if (self.data_dir / "controller").is_dir():
            text = f"{self.data_dir} holds the data of a cluster, not of a single broker"
            raise BrokerError(f"{text}: choose another data folder")

    def _take_data_dir(self) -> None:
        """Lock the folder; Java inherits the lock, so it lasts as long as any process uses the data."""
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            held = (self.data_dir / "lock").open("a+")
        except OSError as error:
            text = f"cannot write the broker's data folder {self.data_dir}: {error.strerror}"
            raise BrokerError(text) from error
        if not lock(held, LOCK_WAIT_S):
            held.close()
            raise BrokerError(f"another broker uses {self.data_dir}: stop it or choose another data folder")
        self._lock = held

    def _let_go(self) -> None:
        self._process = None
        if self._lock is not None:
            (self.data_dir / "pid").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def _choose_port(self) -> None:
        """Keep the port that clients know, else take the wanted one, else any free one."""
        port = self.port or (DEFAULT_PORT if self._wanted is None else 0)
        if port and is_free(port):
            self.port = port
        elif self._wanted or self._answered:
            raise BrokerError(f"port {port} is taken: choose another one, or 0 for any free one")
        else:
            self.port = stable_ports(1)[0]

    def _format(self, jars: Path) -> None:
        """Write server.properties for this start, and the storage's meta data where it is new."""
        text = (HERE / "server.properties").read_text(encoding="utf-8")
        text += "".join(f"{name}={value}\n" for name, value in self._settings.items())  # the last one counts
        log_dir = self.data_dir / "log"
        words = {"port": self.port, "controller_port": self._controller_port(), "log_dir": log_dir}
        for name, value in words.items():
            text = text.replace("{" + name + "}", str(value))
        properties = self.data_dir / "server.properties"
        properties.write_text(text, encoding="utf-8")
        if (log_dir / "meta.properties").exists():
            return
        command = java_command(jars, *SHORT_LIVED, "-Xmx256m", "-Xshare:auto", *LOG_FLAGS)
        command += ["kafka.tools.StorageTool", "format", *self._format_flags(), "-c", str(properties)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BrokerError(
                f"cannot format the {self._role}'s storage in {log_dir}: {_last_line(done.stderr)}"
            )

    def _controller_port(self) -> int:
        """Of the quorum's only controller, which is this node."""
        return stable_ports(1)[0]

    def _format_flags(self) -> list[str]:
        """Make a cluster of one's own."""
        return ["--standalone", f"--cluster-id={new_cluster_id()}"]

    def _launch(self, jars: Path) -> None:
        if self._lock is None:
            raise BrokerError(f"the broker's data folder {self.data_dir} is not locked")
        command = java_command(jars, *self._jvm_flags, *LOG_FLAGS)
        command += ["kafka.Kafka", str(self.data_dir / "server.properties")]
        self._process = Process(
            self._role, command, self.log_file, lock_fd=self._lock.fileno(), cwd=self.data_dir
        )
        self._process.launch(afresh=True)
        (self.data_dir / "pid").write_text(f"{self._process.pid}\n", encoding="ascii")

    def _wait_until_it_answers(self, timeout_s: float) -> None:
        limit = time.monotonic() + timeout_s
        client = fresh_client(self.bootstrap)
        while time.monotonic() < limit:
            self._must_run()
            try:
                if client.list_topics(timeout=0.5).brokers:
                    return
            except KafkaException:
                continue
        raise BrokerError(f"the broker does not answer after {timeout_s:g} s (log: {self.log_file})")

    def _must_run(self) -> None:
        """Raise BrokerError, with the reason, where the process has ended while it starts."""
        if not self.running:
            reason = _reason(self.log_file)
            raise BrokerError(f"the {self._role} did not start: {reason} (log: {self.log_file})")


def new_cluster_id() -> str:
    """A random id in the form of Kafka's Uuid: 16 bytes, base64url without padding."""
    return base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=")


def tail(path: Path) -> str:
    """The last 20 000 characters of a file; empty where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")[-20_000:]
    except OSError:
        return ""


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2] or "no reason given"


def _reason(log: Path) -> str:
    lines = [line for line in tail(log).splitlines() if re.search("Exception|Error|ERROR", line)]
    return (lines or [_last_line(tail(log))])[-1].strip()
