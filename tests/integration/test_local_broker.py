"""The local broker's promises, each shown on a broker of the test's own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from broker import BrokerError, LocalBroker
from broker.jars import class_archive, resolve_jars
from processes.kernel import lives

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LocalBroker]:
    """A running broker of the test's own."""
    with LocalBroker(tmp_path / "kafka", port=0) as running:
        yield running


def answers(bootstrap: str, timeout_s: float = 60.0) -> bool:
    """True if a Kafka broker answers there."""
    try:
        client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}, logger=None)
        return bool(client.list_topics(timeout=timeout_s).brokers)
    except KafkaException:
        return False


def eventually(true: Callable[[], bool], limit_s: float = 60.0) -> bool:
    """Wait until `true()`; False where it is not within `limit_s`."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.05)
    return False


def write(bootstrap: str, topic: str, value: bytes) -> None:
    """Create `topic`, put one confirmed record into its partition 0."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(60)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    producer.produce(topic, value, partition=0)
    assert 0 == producer.flush(60)


def first_value(bootstrap: str, topic: str) -> bytes | None:
    """The value of the first record of partition 0."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "reader"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(60)
        assert message is not None
        assert message.error() is None
        return bytes(message.value() or b"")
    finally:
        consumer.close()


def listening_addresses(pid: int) -> set[str]:
    """Hosts on which the process's TCP sockets listen, as the kernel tells it (hexadecimal)."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            inodes.add(os.readlink(entry).removeprefix("socket:[").rstrip("]"))
        except OSError:
            continue
    hosts = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                hosts.add(fields[1].split(":")[0])
    return hosts


@pytest.mark.parametrize("end", [LocalBroker.stop, LocalBroker.kill])
def test_records_survive_a_restart(own: LocalBroker, end: Callable[[LocalBroker], None]) -> None:
    """After an orderly stop, as after SIGKILL, the same data is served on the same port."""
    write(own.bootstrap, "kept", b"value")
    before, address = own.pid, own.bootstrap
    end(own)
    assert not lives(before)
    own.start()
    assert (address, b"value") == (own.bootstrap, first_value(own.bootstrap, "kept"))


def test_a_broker_reads_its_classes_from_the_archive(own: LocalBroker) -> None:
    """Java has mapped it: it would do without one that does not fit in silence."""
    archive = class_archive(resolve_jars())
    assert archive.stat().st_size
    assert str(archive) in Path(f"/proc/{own.pid}/maps").read_text()


@pytest.mark.parametrize("spoilt", [None, b"", b"no archive"])
def test_a_broker_starts_without_an_archive_of_its_classes(
    spoilt: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not be made, it is gone meanwhile, it is none."""
    archive = tmp_path / "classes.jsa"
    if spoilt is not None:
        archive.write_bytes(spoilt)
    monkeypatch.setattr("broker.jars.class_archive", lambda _: archive)
    with LocalBroker(tmp_path / "kafka", port=0) as running:
        assert answers(running.bootstrap)
    assert str(archive) not in running.log_file.read_text()


def test_the_data_can_move_to_another_port(own: LocalBroker) -> None:
    """A later broker object on the same folder takes another port where it has to."""
    write(own.bootstrap, "kept", b"value")
    own.stop()
    with socket.create_server(("127.0.0.1", own.port)):  # also where connections of before are not over yet
        with LocalBroker(own.data_dir, port=0) as later:
            assert own.port != later.port
            assert b"value" == first_value(later.bootstrap, "kept")


def test_only_loopback_is_served(own: LocalBroker) -> None:
    """Client and controller listeners are bound to 127.0.0.1, nothing else listens."""
    v4, v6_mapped = "0100007F", "0000000000000000FFFF00000100007F"
    found = listening_addresses(own.pid)
    assert found
    assert found <= {v4, v6_mapped}


def test_a_taken_port_is_named_before_java_starts(tmp_path: Path) -> None:
    """A port asked for by number is that port or a one-line error."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BrokerError, match=f"^port {port} is taken: .+$"):
            LocalBroker(tmp_path, port=port).start()


def test_a_taken_default_port_gives_a_free_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a wish the broker takes the default port, or any free one where that is taken."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr("broker.DEFAULT_PORT", taken.getsockname()[1])
        with LocalBroker(tmp_path) as running:
            assert taken.getsockname()[1] != running.port
            assert answers(running.bootstrap)


def test_one_folder_serves_one_broker(own: LocalBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second broker on the same data is refused in one line; the first goes on."""
    monkeypatch.setattr("broker.LOCK_WAIT_S", 0.2)
    with pytest.raises(BrokerError, match="^another broker uses .+: stop it or choose another data folder$"):
        LocalBroker(own.data_dir, port=0).start()
    assert answers(own.bootstrap)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    """A data folder that cannot be made gives a one-line error."""
    (tmp_path / "file").touch()
    with pytest.raises(BrokerError, match="^cannot write the broker's data folder .+: Not a directory$"):
        LocalBroker(tmp_path / "file" / "kafka").start()


def test_a_paused_broker_answers_again_after_resume(own: LocalBroker) -> None:
    """pause() silences the broker without closing anything, resume() brings it back."""
    own.pause()
    assert not answers(own.bootstrap, 1.0)
    own.resume()
    assert eventually(lambda: answers(own.bootstrap))


def test_a_paused_broker_can_be_stopped(own: LocalBroker) -> None:
    """stop() wakes a paused broker first, so that it can end."""
    pid = own.pid
    own.pause()
    own.stop()
    assert not lives(pid)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_broker_outlives_its_starter(tmp_path: Path, how: signal.Signals) -> None:
    """However `python -m broker run` ends, the Java process ends, too, and the data is free again."""
    command = [sys.executable, "-m", "broker", "run", "--data", str(tmp_path), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        address = starter.stdout.readline().strip()
        pid = int((tmp_path / "pid").read_text())
        assert address.startswith("BILLING_BROKER=kafka://127.0.0.1:")
        assert answers(address.partition("://")[2])
        starter.send_signal(how)
        assert (-how if how == signal.SIGKILL else 0) == starter.wait(60)
    assert eventually(lambda: not lives(pid))
    with LocalBroker(tmp_path, port=0) as next_one:
        assert next_one.running


def test_a_broker_that_ends_by_itself_is_reported(tmp_path: Path) -> None:
    """`python -m broker run` exits with 1 and one line where its broker dies."""
    command = [sys.executable, "-m", "broker", "run", "--data", str(tmp_path), "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as starter:
        assert starter.stdout is not None
        starter.stdout.readline()
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        assert 1 == starter.wait(60)
        assert starter.stderr is not None
        assert "the broker ended by itself" in starter.stderr.read().splitlines()[-1]


def test_missing_java_is_said_in_one_line(tmp_path: Path) -> None:
    """Without Java the start ends with one line that says what to do, and exit code 1."""
    command = [sys.executable, "-m", "broker", "run", "--data", str(tmp_path)]
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    text = "Java is missing: install Java 17 or newer, or use a broker of yours with KAFKA=host:port\n"
    assert (1, text) == (done.returncode, done.stderr)
