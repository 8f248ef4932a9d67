"""Dead letters are named, shown, sent back once, through the commands an operator types."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import orjson
import pytest
from confluent_kafka import Producer
from support.system import System, payment
from support.topics import committed

from streamsocial_billing.committed import KafkaProblem
from streamsocial_billing.dead_letters import ReplayRefused, letter, letters, replay, replayed
from streamsocial_billing.events import partition_of
from streamsocial_billing.settings import DEAD_LETTERS, METRICS, PAYMENTS, REPLAYS, Settings

OPERATORS = 4


def dlq(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `streamsocial-billing dlq ...` as an operator does."""
    program = Path(sys.executable).with_name("streamsocial-billing")
    environ = {**os.environ, **system.worker.environment}
    return subprocess.run(
        [str(program), "dlq", *arguments], capture_output=True, text=True, env=environ, check=False
    )


@pytest.mark.timeout(120)
def test_a_letter_is_named_shown_corrected_and_goes_back_once(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """list, show, replay; the corrected event is charged once; a second replay is refused with one line."""
    with System(broker, tmp_path, unique_name) as system:
        system.start()
        bad = orjson.loads(payment("user-1", "pay-1").to_bytes()) | {"amount_minor": -5}
        place = partition_of(b"user-1", system.settings.partitions)
        system.append([(b"user-1", orjson.dumps(bad), place)])
        system.wait_answered()
        [line] = dlq(system, "list", "--json", "--reason", "bad_amount").stdout.splitlines()
        named = orjson.loads(line)
        assert ("user-1", "pay-1", False) == (named["user_id"], named["payment_id"], named["replayed"])
        shown = dlq(system, "show", named["id"]).stdout
        assert "reason: bad_amount" in shown
        assert '"amount_minor":-5' in shown
        right = tmp_path / "right.json"
        right.write_bytes(orjson.dumps(bad | {"amount_minor": 5}))
        dry = dlq(system, "replay", named["id"], "--correction", str(right), "--dry-run")
        assert (0, 0) == (dry.returncode, len(list(committed(system.settings, REPLAYS))))
        done = dlq(system, "replay", named["id"], "--correction", str(right), "--actor", "ann")
        assert 0 == done.returncode, done.stderr
        system.sent += 1
        system.wait_answered()
        [result] = system.results_of("pay-1")
        assert ("succeeded", 5) == (result["status"], result["amount_minor"])
        again = dlq(system, "replay", named["id"])
        assert (1, f"streamsocial-billing: {named['id']} went back before: a letter is replayed once\n") == (
            again.returncode, again.stderr,
        )  # fmt: skip
        assert "replayed" in dlq(system, "list").stdout
        metrics = [message.value() or b"" for message in committed(system.settings, METRICS)]
        assert [] == [metric for metric in metrics if b"requested" in metric]


@pytest.mark.timeout(120)
def test_a_letter_whose_content_is_still_bad_becomes_a_new_letter(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """The original bytes go back as they were: the same reason again, from the new place."""
    with System(broker, tmp_path, unique_name) as system:
        system.start()
        place = partition_of(b"user-1", system.settings.partitions)
        system.append([(b"user-1", b"not json", place)])
        system.wait_answered()
        [first] = letters(system.settings)
        replay(system.settings, first.id, correction=None, actor="ann", dry_run=False)
        system.sent += 1
        system.wait_answered()
        _, second = letters(system.settings)
        assert (b"not json", "not_json") == (second.value, second.reason)
        assert first.source != second.source


def bury(settings: Settings, count: int, **more: str) -> None:
    """Letters as the billing agent writes them."""
    headers: dict[str, str | bytes | None] = {"reason": "bad_amount", "error": "x", "at": "1", **more}
    headers.setdefault("source", f"{settings.topic(PAYMENTS)}/0/0")
    producer = Producer(settings.client_config())
    for number in range(count):
        producer.produce(settings.topic(DEAD_LETTERS), b"{}", key=b"user-%d" % number, headers=headers)
    assert 0 == producer.flush(10)
    producer.close()


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:Producer abort_transaction failed")  # of a fenced one, in four threads
def test_operators_who_replay_the_same_letter_at_the_same_moment_send_it_back_once(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Of four at once at most one is told that it went back, and one event with one marker is on the log."""
    with System(broker, tmp_path, unique_name) as system:
        bury(system.settings, 5)
        for one in list(letters(system.settings)):
            gate = Barrier(OPERATORS)

            def at_once(_: int, letter_id: str = one.id, gate: Barrier = gate) -> bool:
                gate.wait(10)
                try:
                    replay(system.settings, letter_id, correction=None, actor="ann", dry_run=False)
                except KafkaProblem:  # refused, or fenced so hard that it does not know
                    return False
                return True

            with ThreadPoolExecutor(OPERATORS) as pool:
                said = list(pool.map(at_once, range(OPERATORS)))
            assert sum(said) <= 1
            if one.id not in replayed(system.settings):  # each was fenced by the next
                replay(system.settings, one.id, correction=None, actor="ann", dry_run=False)
        assert 5 == len(list(committed(system.settings, PAYMENTS)))
        assert 5 == len({message.key() for message in committed(system.settings, REPLAYS)})


@pytest.mark.timeout(60)
def test_what_cannot_go_back_is_refused_with_one_line(broker: str, tmp_path: Path, unique_name: str) -> None:
    """Unknown ids, a masked or cut letter without a correction, a nudge, a correction that is no payment."""
    with System(broker, tmp_path, unique_name) as system:
        settings = system.settings
        bury(settings, 1, masked="card_number")
        bury(settings, 1, length="2000000")
        bury(settings, 1, source=f"{settings.topic('payments-retry')}/0/0")
        bury(settings, 1)
        found = {(one.masked, one.cut_from, "retry" in one.source): one.id for one in letters(settings)}
        expected = {
            found[True, None, False]: "cannot go back as it is, a card number was masked in it",
            found[False, 2_000_000, False]: "cannot go back as it is, it was cut from 2000000 bytes",
            found[False, None, True]: "only events of",
            "0-99": "there is no dead letter 0-99",
            "77-0": "there is no dead letter 77-0",
            "x": "there is no dead letter x",
        }
        for letter_id, why in expected.items():
            with pytest.raises(ReplayRefused, match=why):
                replay(settings, letter_id, correction=None, actor="ann", dry_run=False)
        with pytest.raises(ReplayRefused, match="the correction is no payment"):
            replay(settings, found[False, None, False], correction=b"[]", actor="ann", dry_run=False)
        assert letter(settings, found[True, None, False]).masked
        assert [] == list(committed(settings, PAYMENTS))
