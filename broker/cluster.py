"""Run one or three real Kafka brokers on loopback with a controller process of its own."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException

import broker
from broker import SHORT_LIVED, STARTS_WITHIN_S, BrokerError, LocalBroker
from broker.clients import fresh_client
from broker.listeners import CONTROLLER_ID, Listeners, Through
from broker.ports import stable_ports
from processes.kernel import resident_bytes

# measured: the four processes hold 0.6 to 0.8 GiB together; with every heap full they stay below 2 GiB
BROKER_FLAGS = ("-Xms128m", "-Xmx384m", *SHORT_LIVED, "-Xshare:auto", "-XX:-UsePerfData")
# it keeps the metadata of a few hundred partitions
CONTROLLER_FLAGS = ("-Xms32m", "-Xmx128m", *SHORT_LIVED, "-Xshare:auto", "-XX:-UsePerfData")
LOOK_EVERY_S = 0.05


def replicated(brokers: int) -> dict[str, str]:
    """The settings of user and internal topics by which every record outlives any single broker of three."""
    replicas, in_sync = str(brokers), str(brokers // 2 + 1)
    return {
        "default.replication.factor": replicas,
        # `__consumer_offsets` has no setting of its own: this one counts for it, too
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
    }


class Controller(LocalBroker):
    """The cluster's only KRaft controller. No client talks to it."""

    _role = "controller"
    _jvm_flags = CONTROLLER_FLAGS

    def __init__(self, data_dir: Path, brokers: int, settings: Mapping[str, str]) -> None:
        own = {
            "process.roles": "controller",
            "node.id": str(CONTROLLER_ID),
            "listeners": "CONTROLLER://127.0.0.1:{port}",
            "advertised.listeners": "CONTROLLER://127.0.0.1:{port}",
        }
        super().__init__(data_dir, 0, own | dict(settings))
        self._brokers = brokers

    @property
    def cluster_id(self) -> str:
        """The id that was drawn when the storage was formatted."""
        text = (self.data_dir / "log" / "meta.properties").read_text(encoding="utf-8")
        return dict(line.partition("=")[::2] for line in text.splitlines())["cluster.id"]

    def _controller_port(self) -> int:
        return self.port

    def _format(self, jars: Path) -> None:
        made_for = self.data_dir / "brokers"
        if not made_for.exists():
            made_for.write_text(f"{self._brokers}\n", encoding="ascii")
        found = made_for.read_text(encoding="ascii").strip()
        if found != str(self._brokers):
            held = f"{found or 'no'} broker{'' if found == '1' else 's'}"
            text = f"{self.data_dir.parent} holds the data of {held}, not of {self._brokers}"
            raise BrokerError(f"{text}: choose another data folder")
        super()._format(jars)

    def _wait_until_it_answers(self, timeout_s: float) -> None:
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            self._must_run()
            try:
                with socket.create_connection(("127.0.0.1", self.port), 0.5):
                    return
            except OSError:
                time.sleep(LOOK_EVERY_S)
        raise BrokerError(f"the controller does not listen after {timeout_s:g} s (log: {self.log_file})")


class Node(LocalBroker):
    """One broker of a cluster; everything that LocalBroker can do, for this broker alone."""

    _jvm_flags = BROKER_FLAGS

    def __init__(
        self, data_dir: Path, number: int, wish: int, settings: Mapping[str, str]
    ) -> None:
        super().__init__(data_dir, 0, {"node.id": str(number)} | dict(settings))
        self.number = number
        self.port = wish
        self._role = f"broker {number}"

    def begin(self) -> None:
        """Start without waiting; finish() waits."""
        jars = self._ready_jars()
        self._take_data_dir()
        self._choose_port()
        self._format(jars)
        self._launch(jars)

    def finish(self, timeout_s: float) -> None:
        """Return once it answers; where its port was taken meanwhile, it starts again on another one."""
        try:
            self._wait_until_it_answers(timeout_s)
            self._answered = True
        except BrokerError:
            if self.running or self._answered or "already in use" not in broker.tail(self.log_file):
                raise
            self.kill()
            self.start(timeout_s)

    def knows(self) -> dict[int, int]:
        """Brokers that it names to a client: id -> port. Empty while it does not answer."""
        client = fresh_client(self.bootstrap)  # one that knows the cluster would ask any of the brokers
        try:
            return {each.id: each.port for each in client.list_topics(timeout=0.5).brokers.values()}
        except KafkaException:
            return {}

    def _wait_until_it_answers(self, timeout_s: float) -> None:
        limit = time.monotonic() + timeout_s
        while time.monotonic() < limit:
            self._must_run()
            if self.knows().get(self.number) == self.port:
                return
            time.sleep(LOOK_EVERY_S)
        raise BrokerError(f"{self._role} does not answer after {timeout_s:g} s (log: {self.log_file})")


class Member(Node):
    """A broker whose controller is another process."""

    def __init__(
        self, data_dir: Path, number: int, wish: int, controller: Controller, settings: Mapping[str, str]
    ) -> None:
        own = {
            "process.roles": "broker",
            "listeners": "CLIENT://127.0.0.1:{port}",
            "advertised.listeners": "CLIENT://127.0.0.1:{port}",
        }
        super().__init__(data_dir, number, wish, own | dict(settings))
        self._controller = controller

    def _controller_port(self) -> int:
        return self._controller.port

    def _format_flags(self) -> list[str]:
        return [f"--cluster-id={self._controller.cluster_id}"]


class BaseCluster:
    """Brokers, each a process of its own, their lives bound to this process; each can be stopped alone."""

    def __init__(self, data_dir: Path | str, brokers: Sequence[Node]) -> None:
        self.data_dir = Path(data_dir).absolute()
        self.brokers = list(brokers)

    @property
    def bootstrap(self) -> str:
        """Addresses of all brokers for clients, `host:port,host:port,...`."""
        return ",".join(node.bootstrap for node in self.brokers)

    @property
    def url(self) -> str:
        """Addresses as Faust writes them, `kafka://host:port;kafka://host:port;...`."""
        return ";".join(node.url for node in self.brokers)

    @property
    def nodes(self) -> list[LocalBroker]:
        """Every process."""
        return [*self.brokers]

    def memory_bytes(self) -> int:
        """What the running processes hold in memory together (resident); 0 where there is no /proc."""
        return sum(resident_bytes(node.pid) for node in self.nodes if node.running)

    def start(self, timeout_s: float = STARTS_WITHIN_S) -> None:
        """Start what does not run; return once every broker answers and names all others.

        Raises BrokerError after `timeout_s`; then nothing is left running.
        """
        limit = time.monotonic() + timeout_s
        for each in self.nodes:
            if not each.running:
                each.kill()  # lets go of what a dead process held
        try:
            self._before_brokers(timeout_s)
            ended = [node for node in self.brokers if not node.running]
            for node in ended:
                node.begin()
            for node in ended:
                node.finish(limit - time.monotonic())
            self._wait_until_all_are_known(limit, timeout_s)
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_s: float = 15.0) -> None:
        """Stop in order: the brokers together, then what they need for it."""
        running = [node for node in self.brokers if node.running]
        for node in running:
            node.resume()
            node.ask_to_stop()  # all at once, so that they wait for each other once
        for each in reversed(self.nodes):
            each.stop(timeout_s)

    def kill(self) -> None:
        """End every process as a crash of the machine would (SIGKILL)."""
        for each in self.nodes:
            each.kill()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _before_brokers(self, timeout_s: float) -> None:
        """Start what brokers need."""

    def _wait_until_all_are_known(self, limit: float, timeout_s: float) -> None:
        everyone = {node.number: node.port for node in self.brokers}
        for node in self.brokers:
            while node.knows() != everyone:
                if time.monotonic() > limit:
                    text = f"broker {node.number} does not know all brokers after {timeout_s:g} s"
                    raise BrokerError(f"{text} (log: {node.log_file})")
                time.sleep(LOOK_EVERY_S)


class LocalCluster(BaseCluster):
    """One or three Kafka brokers of our own and a controller, their lives bound to this process.

    With three, topics have replication 3 and min.insync.replicas 2 unless their creator says otherwise; the
    internal topics do, too. `port`: None takes 9092 and the next ones, or free ports where they are taken; 0
    takes free ports. Ports stay the same over ends and starts. `brokers` can be stopped, killed, paused and
    started one by one. `settings` go to all nodes. Raises BrokerError with a one-line text.

    With `through`, nodes call each other by the ports that it returns, and each name of `clients` has a way
    in of its own (`bootstrap_for`); `bootstrap` itself stays direct. See broker.listeners.
    """

    def __init__(
        self, data_dir: Path | str, brokers: int = 3, port: int | None = None,
        settings: Mapping[str, str] | None = None, *,
        clients: Sequence[str] = (), through: Through | None = None,
    ) -> None:  # fmt: skip
        if brokers not in (1, 3):
            raise BrokerError(f"a cluster of {brokers} brokers is not offered: choose 1 or 3")
        data_dir = Path(data_dir).absolute()
        of_all = replicated(brokers) | dict(settings or {})
        self._listeners = Listeners(brokers, clients, through) if through is not None else None
        of_node = self._listeners.settings if self._listeners is not None else _nothing
        self.controller = Controller(data_dir / "controller", brokers, of_node(CONTROLLER_ID) | of_all)
        wishes = stable_ports(brokers) if port == 0 else range(port or broker.DEFAULT_PORT, 65_536)
        super().__init__(data_dir, [
            Member(data_dir / f"broker-{number}", number, wish, self.controller, of_node(number) | of_all)
            for number, wish in zip(range(1, brokers + 1), wishes, strict=False)
        ])  # fmt: skip

    @property
    def nodes(self) -> list[LocalBroker]:
        """Every process: the controller, then the brokers."""
        return [self.controller, *self.brokers]

    def bootstrap_for(self, client: str) -> str:
        """Addresses of all brokers as this one of `clients` comes in; LookupError for any other name."""
        if self._listeners is None:
            raise LookupError(f"{client} has no listener of its own")
        return ",".join(f"127.0.0.1:{port}" for port in self._listeners.bootstrap(client))

    def _before_brokers(self, timeout_s: float) -> None:
        self._refuse_data_of_a_single_broker()
        self.controller.start(timeout_s)

    def _refuse_data_of_a_single_broker(self) -> None:
        if (self.data_dir / "log").is_dir():
            text = f"{self.data_dir} holds the data of a single broker, not of a cluster"
            raise BrokerError(f"{text}: choose another data folder")


def _nothing(_: int) -> dict[str, str]:
    return {}
