"""What an operator can mend is one line that says what to do.

Each refusal: one line on stderr, an exit code that is not 0, no stack trace, no process left, in the end.
Most need a few seconds, a machine that is busy with something else a few times as many.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic
from support.system import free_port

from faust_exactly_once.cluster import Cluster
from streamsocial_billing.kafka.topics import DAY_MS
from streamsocial_billing.settings import PAYMENTS, RETRY, Settings

BIN = Path(sys.executable).parent
OURS = (str(BIN / "streamsocial-billing"),)
FAUST = (str(BIN / "faust"), "-A", "streamsocial_billing")
WITHIN_S = 250.0
NOBODY = {"BILLING_BROKER": "kafka://127.0.0.1:1"}


def environment(variables: dict[str, str]) -> dict[str, str]:
    """The environment of a command: no setting but these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("BILLING_", "F_", "FAUST_"))}
    return kept | variables


def refusal(*command: str, cwd: Path, code: int = 1, environ: dict[str, str] | None = None) -> str:
    """The line with which a command ends; asserts everything that holds for each refusal."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd,
        env=environment(environ or {}), start_new_session=True,
    )  # fmt: skip
    try:
        out, err = process.communicate(timeout=WITHIN_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"{command} goes on: {process.communicate()}") from None
    assert (code, 1) == (process.returncode, len(err.splitlines())), err
    assert "Traceback" not in out + err
    with pytest.raises(ProcessLookupError):  # nobody is left in its session
        os.killpg(process.pid, 0)
    return err


@contextmanager
def taken_port() -> Iterator[int]:
    """A port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]


@pytest.fixture
def names(broker: str, unique_name: str) -> dict[str, str]:
    """Settings of an app of the test's own on the shared broker."""
    return {
        "BILLING_BROKER": f"kafka://{broker}", "BILLING_APP_ID": unique_name, "BILLING_PARTITIONS": "2",
        "BILLING_TOPIC_PREFIX": f"{unique_name}-",
    }  # fmt: skip


@pytest.mark.parametrize("start", [OURS, FAUST], ids=["ours", "faust"])
def test_a_worker_without_a_broker_says_where_it_looked(start: tuple[str, ...], tmp_path: Path) -> None:
    """The line names the address and the setting that changes it."""
    line = refusal(*start, "worker", f"--web-port={free_port()}", cwd=tmp_path, environ=NOBODY)
    assert "no Kafka broker answers at 127.0.0.1:1" in line
    assert "BILLING_BROKER" in line


@pytest.mark.parametrize("command", ["submit", "results", "audit"])
def test_a_command_without_a_broker_says_where_it_looked(command: str, tmp_path: Path) -> None:
    """The line names the address and the setting that changes it."""
    line = refusal(*OURS, command, cwd=tmp_path, environ=NOBODY)
    assert "Kafka at 127.0.0.1:1 does not answer" in line
    assert "BILLING_BROKER" in line


def test_something_else_at_the_brokers_address_is_no_broker(tmp_path: Path) -> None:
    """A listener that says nothing ends the wait too."""
    with taken_port() as port:
        line = refusal(*OURS, "worker", f"--web-port={free_port()}", cwd=tmp_path,
                       environ={"BILLING_BROKER": f"kafka://127.0.0.1:{port}"})  # fmt: skip
    assert f"no Kafka broker answers at 127.0.0.1:{port}" in line


@pytest.mark.parametrize("start", [OURS, FAUST], ids=["ours", "faust"])
def test_a_taken_web_port_is_named(start: tuple[str, ...], tmp_path: Path) -> None:
    """The line names port, reason, option; the broker is not even asked."""
    with taken_port() as port:
        line = refusal(*start, "worker", f"--web-port={port}", cwd=tmp_path, environ=NOBODY)
    why = "cannot be used (Address already in use): choose another --web-port"
    assert f"web port {port} on 127.0.0.1 {why}" in line


def test_a_file_in_place_of_the_data_folder_is_named(tmp_path: Path) -> None:
    """A wrong option of ours is one line with exit code 2, as click has it."""
    (tmp_path / "w1").touch()
    line = refusal(*OURS, "--datadir=w1", "worker", cwd=tmp_path, code=2)
    assert "Directory 'w1' is a file" in line


@pytest.mark.parametrize("start", [OURS, FAUST], ids=["ours", "faust"])
def test_a_data_folder_that_cannot_be_made_is_named(start: tuple[str, ...], tmp_path: Path) -> None:
    """The line names folder, reason, option."""
    (tmp_path / "file").touch()
    line = refusal(*start, "--datadir=file/w1", "worker", cwd=tmp_path)
    assert "the data folder file/w1 cannot be written (Not a directory): choose another --datadir" in line


def test_a_file_where_the_tables_belong_is_named(tmp_path: Path, names: dict[str, str]) -> None:
    """Deeper inside the data folder it is the same."""
    (tmp_path / "w1").mkdir()
    (tmp_path / "w1/v1").touch()
    line = refusal(*OURS, "--datadir=w1", "worker", f"--web-port={free_port()}", cwd=tmp_path, environ=names)
    assert "w1/v1/tables cannot be written (Not a directory): choose another --datadir" in line


def test_submit_names_a_data_folder_that_it_cannot_use(tmp_path: Path) -> None:
    """Its id lives there."""
    (tmp_path / "file").touch()
    line = refusal(*OURS, "--datadir=file/w1", "submit", cwd=tmp_path)
    assert "data folder file/w1 cannot be used (Not a directory): choose another one with --datadir" in line


@pytest.mark.parametrize("start", [OURS, FAUST], ids=["ours", "faust"])
@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("BILLING_PARTITION", "8", "did you mean BILLING_PARTITIONS?"),
        ("BILLING_PARTITIONS", "eight", "use a whole number from 1 to 1000"),
        ("BILLING_BROKER", "http://127.0.0.1:9092", "use kafka://host:port"),
        ("BILLING_GATEWAY_DEADLINE_S", "10", "is not below BILLING_SESSION_TIMEOUT_S=10"),
    ],
)
def test_a_wrong_setting_is_named(
    start: tuple[str, ...], variable: str, value: str, said: str, tmp_path: Path
) -> None:
    """An unknown variable or a bad value: the line names the variable and what is allowed."""
    line = refusal(*start, "worker", cwd=tmp_path, environ={variable: value})
    assert variable in line
    assert said in line


def test_a_certificate_file_that_is_none_is_named(tmp_path: Path) -> None:
    """The line names variable and file."""
    (tmp_path / "ca.pem").write_text("no certificate")
    tls = {"BILLING_KAFKA_SECURITY_PROTOCOL": "SSL", "BILLING_KAFKA_CA_FILE": "ca.pem"}
    line = refusal(*OURS, "worker", cwd=tmp_path, environ=tls)
    assert "BILLING_KAFKA_CA_FILE='ca.pem' is not a PEM file of certificates" in line


def test_partition_counts_that_differ_are_named(tmp_path: Path, names: dict[str, str]) -> None:
    """`payments` and `payments-retry` share tasks: the line names both with their counts."""
    settings = Settings.from_environment(names)
    topics = settings.topic(PAYMENTS), settings.topic(RETRY)
    _create(settings, NewTopic(topics[0], 2, 1, config={"message.timestamp.type": "LogAppendTime"}))
    _create(settings, NewTopic(topics[1], 3, 1))
    line = refusal(*OURS, "worker", f"--web-port={free_port()}", cwd=tmp_path, environ=names)
    assert f"topic {topics[1]} has 3 partitions, {topics[0]} has 2" in line


def test_another_partition_count_than_the_topics_have_is_named(tmp_path: Path, names: dict[str, str]) -> None:
    """A worker with 12 on a system of 2 started in silence: both counts, and what to set."""
    settings = Settings.from_environment(names)
    topic = settings.topic(PAYMENTS)
    _create(settings, NewTopic(topic, 2, 1, config={"message.timestamp.type": "LogAppendTime"}))
    line = refusal(*OURS, "worker", f"--web-port={free_port()}", cwd=tmp_path,
                   environ=names | {"BILLING_PARTITIONS": "12"})  # fmt: skip
    assert f"BILLING_PARTITIONS is 12, but topic {topic} has 2 partitions: set BILLING_PARTITIONS=2" in line


def test_a_default_gateway_that_is_not_set_up_is_named(tmp_path: Path, names: dict[str, str]) -> None:
    """Every payment without a gateway would be refused: the line names what is missing."""
    line = refusal(*OURS, "worker", f"--web-port={free_port()}", cwd=tmp_path,
                   environ=names | {"BILLING_DEFAULT_GATEWAY": "stripe"})  # fmt: skip
    assert "BILLING_DEFAULT_GATEWAY=stripe is not set up: set BILLING_STRIPE_API_KEY too" in line


def test_payments_kept_longer_than_they_are_remembered_are_refused(
    tmp_path: Path, names: dict[str, str]
) -> None:
    """An event older than the dedup table's memory could be charged again."""
    settings = Settings.from_environment(names)
    config = {"message.timestamp.type": "LogAppendTime", "retention.ms": str(36 * DAY_MS)}
    _create(settings, NewTopic(settings.topic(PAYMENTS), 2, 1, config=config))
    line = refusal(*OURS, "worker", f"--web-port={free_port()}", cwd=tmp_path, environ=names)
    assert f"topic {settings.topic(PAYMENTS)} keeps records {36 * DAY_MS} ms" in line
    assert "lower its retention.ms" in line


@pytest.mark.parametrize("command", ["submit", "results", "audit"])
def test_a_command_before_any_worker_says_what_comes_first(
    command: str, tmp_path: Path, names: dict[str, str]
) -> None:
    """The topics are made by a worker."""
    line = refusal(*OURS, command, cwd=tmp_path, environ=names)
    assert "does not exist: start a worker first" in line


def test_a_taken_gateway_port_is_named(tmp_path: Path) -> None:
    """The line names port and option."""
    with taken_port() as port:
        line = refusal(*OURS, "gateway", f"--port={port}", cwd=tmp_path)
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use; choose another --port" in line


def test_an_unwritable_ledger_is_named(tmp_path: Path) -> None:
    """The line names file and option."""
    (tmp_path / "file").touch()
    line = refusal(*OURS, "gateway", f"--port={free_port()}", "--ledger=file/ledger", cwd=tmp_path)
    assert "cannot write the ledger file/ledger" in line
    assert "choose another --ledger" in line


def _create(settings: Settings, topic: NewTopic) -> None:
    Cluster(settings.client_config(), 60).create([topic])
