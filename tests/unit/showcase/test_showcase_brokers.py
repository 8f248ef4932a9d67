"""BROKERS for `make run` and `make up`: what is refused, what everybody gets of three brokers."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from broker import BrokerError
from broker.choice import folder_name
from showcase.__main__ import main
from showcase.folder import Folder
from showcase.kafka import OwnKafka
from showcase.system import System
from showcase.up import instructions
from streamsocial_billing.settings import Settings


def quiet(text: str) -> None:
    """Where nobody listens."""


@pytest.mark.parametrize("command", ["run", "up"])
@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"BROKERS": "2"}, "BROKERS=2 is not offered: choose 1 or 3"),
        ({"BROKERS": "0"}, "BROKERS=0 is not offered: choose 1 or 3"),
        ({"BROKERS": "x"}, "BROKERS=x is not offered: choose 1 or 3"),
        (
            {"BROKERS": "3", "KAFKA": "a:9092"},
            "BROKERS=3 starts brokers, KAFKA=a:9092 names yours: choose one",
        ),
    ],
)
def test_other_counts_of_brokers_are_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str,
    variables: dict[str, str], text: str,
) -> None:  # fmt: skip
    """Exit code 2, one line, no data folder."""
    monkeypatch.setattr("sys.argv", ["showcase", command, "--data", str(tmp_path / "data")])
    for name in ("BROKERS", "KAFKA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert 2 == main()
    assert ("", f"showcase: {text}\n") == capsys.readouterr()
    assert [] == list(tmp_path.iterdir())


def test_each_number_of_brokers_has_data_of_its_own() -> None:
    """By default; of one broker where they always were."""
    assert ("up", "up-3", "kafka-3") == (folder_name("up", 1), folder_name("up", 3), folder_name("kafka", 3))


@pytest.mark.parametrize(("brokers", "there_before"), [(3, "log"), (1, "controller")])
def test_data_of_another_number_of_brokers_are_refused(
    tmp_path: Path, brokers: int, there_before: str
) -> None:
    """With --data: one line, and nothing is written into them."""
    (tmp_path / there_before).mkdir()
    with pytest.raises(BrokerError, match="^.+ holds the data of a .+: choose another data folder$"):
        OwnKafka(tmp_path, brokers, quiet).start()
    assert [there_before] == [entry.name for entry in tmp_path.iterdir()]


@pytest.mark.parametrize(("variables", "brokers"), [({}, 1), ({"BROKERS": "1"}, 1), ({"BROKERS": "3"}, 3)])
def test_brokers_of_ours_decide_the_copies(tmp_path: Path, variables: dict[str, str], brokers: int) -> None:
    """Whatever was meant for another Kafka is not taken over."""
    with Folder(tmp_path / "up") as folder:
        system = System(folder, variables | {"BILLING_REPLICATION": "2"}, {}, quiet)
    assert Settings().replication == system.settings.replication
    assert system.own_kafka is not None
    assert brokers == len(system.own_kafka.brokers)


def test_each_process_of_three_brokers_is_kept_and_brokers_wait_for_the_controller(tmp_path: Path) -> None:
    """Without it a broker that starts only waits; workers wait for enough brokers for a commit."""
    kafka = OwnKafka(tmp_path, 3, quiet)
    assert ["controller", "broker-1", "broker-2", "broker-3"] == [part.name for part in kafka.parts]
    assert [True, False, False, False] == [part.may_start() for part in kafka.parts]
    assert (False, "Kafka: 0 of 3 brokers") == (kafka.is_there, kafka.state)


def test_one_broker_is_one_part_and_needs_no_word_in_the_status_line(tmp_path: Path) -> None:
    """As it always was."""
    kafka = OwnKafka(tmp_path, 1, quiet)
    assert (["Kafka"], "") == ([part.name for part in kafka.parts], kafka.state)
    assert kafka.brokers[0].may_start()


def test_what_make_up_prints_to_export_reaches_commands_as_it_is(tmp_path: Path) -> None:
    """Several addresses have semicolons between them, at which a shell ends a command."""
    brokers = "kafka://127.0.0.1:9092;kafka://127.0.0.1:9093;kafka://127.0.0.1:9094"
    settings = Settings(broker=brokers, gateway_url="http://127.0.0.1:8420")
    lines = instructions(settings, "http://127.0.0.1:6066", tmp_path)
    exports = [line.strip() for line in lines if line.strip().startswith("export BILLING_")]
    script = "\n".join([*exports, 'echo "$BILLING_BROKER"'])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert f"{brokers}\n" == done.stdout


def test_make_up_says_where_people_play_the_customer(tmp_path: Path) -> None:
    """A payment that wants its customer would wait for ever: the page is the gateway's, wherever that is."""
    settings = Settings(gateway_url="http://127.0.0.1:8499")
    lines = instructions(settings, "http://127.0.0.1:6066", tmp_path)
    assert ["customers  http://127.0.0.1:8499/_intents"] == [one for one in lines if one.startswith("cust")]
