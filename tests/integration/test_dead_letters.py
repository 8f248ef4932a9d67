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
from support.system import CALM, System, payment
from support.topics import committed, wait_settled

from faust_exactly_once import partition_of
from streamsocial_billing.kafka.committed import KafkaProblem
from streamsocial_billing.operations.dead_letters import (
    ReplayRefused,
    dead_letter,
    dead_letters,
    replay,
    replayed,
)
from streamsocial_billing.settings import DEAD_LETTERS, METRICS, PAYMENTS, REPLAYS, Settings

OPERATORS = 4


def dlq(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `streamsocial-billing dlq ...` as an operator does."""
    program = Path(sys.executable).with_name("streamsocial-billing")
    environ = {**os.environ, **system.worker.environment}
    return subprocess.run(
        [str(program), "dlq", *arguments], capture_output=True, text=True, env=environ, check=False
    )


@pytest.mark.timeout(600)
def test_a_letter_is_named_shown_corrected_and_goes_back_once(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """list, show, replay; the corrected event is charged once; a second replay is refused with one line."""
    with System(broker, tmp_path, unique_name, **CALM) as system:
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
        del bad["gateway"]  # as any intake, a replay goes to the only gateway that is set up
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


GOOD = payment("user-1", "pay-1")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (b"user-1", b"not json", "not_json: "),
        (b"user-1", orjson.dumps(orjson.loads(GOOD.to_bytes()) | {"amount_minor": 0}), "bad_amount: "),
        (b"user-2", GOOD.to_bytes(), "key_mismatch: record key 'user-2' is not user_id 'user-1'"),
        (None, GOOD.to_bytes(), "key_mismatch: "),
    ],
)  # fmt: skip
def test_a_replay_that_would_fail_again_is_refused_and_leaves_the_letter_usable(
    key: bytes | None, value: bytes, why: str, broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Exit code 1 with one line, in a dry run too; nothing is sent; a correction still goes back."""
    with System(broker, tmp_path, unique_name, partitions=2) as system:
        put_dead_letter(system.settings, key, value)
        (first,) = dead_letters(system.settings)
        for more in (["--dry-run"], []):
            refused = dlq(system, "replay", first.id, *more)
            assert (1, "", 1) == (refused.returncode, refused.stdout, refused.stderr.count("\n"))
            assert f"{first.id} would fail again, {why}" in refused.stderr
        assert [] == list(committed(system.settings, PAYMENTS)) + list(committed(system.settings, REPLAYS))
        replay(system.settings, first.id, correction=GOOD.to_bytes(), actor="ann", dry_run=False)
        (back,) = committed(system.settings, PAYMENTS)
        place = f"{back.topic()}/{back.partition()}/{back.offset()}"
        wait_settled(system.settings, system.settings.topic(REPLAYS))
        assert place == replayed(system.settings)[first.id].to


@pytest.mark.timeout(600)
def test_a_letter_whose_reason_can_pass_now_goes_back_as_it_is(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """A wrong partition: the replay goes where its key belongs. A date too far ahead: the time has come."""
    with System(broker, tmp_path, unique_name, **CALM) as system:
        system.start()
        home = partition_of(b"user-1", system.settings.partitions)
        system.append([(b"user-1", GOOD.to_bytes(), (home + 1) % system.settings.partitions)])
        system.wait_answered()
        early = payment("user-1", "pay-2").to_bytes()
        put_dead_letter(system.settings, b"user-1", early, "requested_in_future")
        found = {one.reason: one.id for one in dead_letters(system.settings)}
        assert {"wrong_partition", "requested_in_future"} == found.keys()
        for letter_id in found.values():
            done = dlq(system, "replay", letter_id)
            assert (0, "") == (done.returncode, done.stderr)
        system.sent += 3  # with the event of the letter that the test wrote, which counts as an answer
        system.wait_answered()
        assert ["succeeded"] * 2 == [one["status"] for one in system.all_results()]


@pytest.mark.timeout(600)
def test_a_replay_that_failed_again_is_linked_to_its_letter(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """`list` and `show` say where it went and what it became; the new letter says whose replay it is.

    Such a replay is not sent any more, but a release before this one did, and workers' clocks differ.
    """
    with System(broker, tmp_path, unique_name, **CALM) as system:
        system.start()
        put_dead_letter(system.settings, b"user-1", GOOD.to_bytes())
        (first,) = dead_letters(system.settings)
        place = partition_of(b"user-1", system.settings.partitions)
        producer = Producer(system.settings.client_config() | {"enable.idempotence": True})
        topic = system.settings.topic(PAYMENTS)
        producer.produce(topic, b"not json", b"user-1", place, headers={"replay_of": first.id})
        marker = orjson.dumps({"letter": first.id, "actor": "ann", "at": 1, "to": f"{topic}/{place}/0"})
        producer.produce(system.settings.topic(REPLAYS), marker, first.id.encode())
        assert 0 == producer.flush(60)
        producer.close()
        assert system.dead_letters.wait(lambda: len(system.dead_letters.records) == 2)
        found = [orjson.loads(line) for line in dlq(system, "list", "--json").stdout.splitlines()]
        old, new = sorted(found, key=lambda one: one["replay_of"] is not None)
        assert (first.id, None, new["id"], f"{topic}/{place}/0", "ann") == (
            old["id"], old["replay_of"], old["failed_again"], old["replayed_to"], old["replayed_by"],
        )  # fmt: skip
        assert (first.id, None, False) == (new["replay_of"], new["failed_again"], new["replayed"])
        listed = dlq(system, "list").stdout
        assert f"(replayed to {topic}/{place}/0 by ann, failed again as {new['id']})\n" in listed
        assert f"(replay of {first.id})\n" in listed
        assert f"failed_again: {new['id']}\n" in dlq(system, "show", first.id).stdout
        assert f"replay_of: {first.id}\n" in dlq(system, "show", new["id"]).stdout


def put_dead_letter(settings: Settings, key: bytes | None, value: bytes, reason: str = "bad_amount") -> None:
    """A letter with this content, as the billing agent writes it."""
    headers: dict[str, str | bytes | None] = {
        "reason": reason, "error": "x", "at": "1", "source": f"{settings.topic(PAYMENTS)}/0/0",
    }  # fmt: skip
    producer = Producer(settings.client_config() | {"enable.idempotence": True})
    producer.produce(settings.topic(DEAD_LETTERS), value, key=key, headers=headers)
    assert 0 == producer.flush(60)
    producer.close()


def put_dead_letters(settings: Settings, count: int, **more: str) -> None:
    """Letters as the billing agent writes them."""
    headers: dict[str, str | bytes | None] = {"reason": "bad_amount", "error": "x", "at": "1", **more}
    headers.setdefault("source", f"{settings.topic(PAYMENTS)}/0/0")
    producer = Producer(settings.client_config() | {"enable.idempotence": True})
    for number in range(count):
        event = payment(f"user-{number}", "pay-1").to_bytes()
        producer.produce(settings.topic(DEAD_LETTERS), event, key=b"user-%d" % number, headers=headers)
    assert 0 == producer.flush(60)
    producer.close()


@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:Producer abort_transaction failed")  # of a fenced one, in four threads
def test_operators_who_replay_the_same_letter_at_the_same_moment_send_it_back_once(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """Of four at once at most one is told that it went back, and one event with one marker is on the log."""
    with System(broker, tmp_path, unique_name) as system:
        put_dead_letters(system.settings, 5)
        for one in list(dead_letters(system.settings)):
            gate = Barrier(OPERATORS)

            def at_once(_: int, letter_id: str = one.id, gate: Barrier = gate) -> bool:
                gate.wait(60)
                try:
                    replay(system.settings, letter_id, correction=None, actor="ann", dry_run=False)
                except KafkaProblem:  # refused, or fenced so hard that it does not know
                    return False
                return True

            with ThreadPoolExecutor(OPERATORS) as pool:
                said = list(pool.map(at_once, range(OPERATORS)))
            assert sum(said) <= 1
            wait_settled(system.settings, system.settings.topic(REPLAYS))
            if one.id not in replayed(system.settings):  # each was fenced by the next
                replay(system.settings, one.id, correction=None, actor="ann", dry_run=False)
        assert 5 == len(list(committed(system.settings, PAYMENTS)))
        assert 5 == len({message.key() for message in committed(system.settings, REPLAYS)})


@pytest.mark.timeout(600)
def test_what_cannot_go_back_is_refused_with_one_line(broker: str, tmp_path: Path, unique_name: str) -> None:
    """Unknown ids, a masked or cut letter without a correction, a trigger, a wrong correction."""
    with System(broker, tmp_path, unique_name) as system:
        settings = system.settings
        put_dead_letters(settings, 1, masked="card_number")
        put_dead_letters(settings, 1, length="2000000")
        put_dead_letters(settings, 1, source=f"{settings.topic('payments-retry')}/0/0")
        put_dead_letters(settings, 1)
        found = {(one.masked, one.cut_from, "retry" in one.source): one.id for one in dead_letters(settings)}
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
        with pytest.raises(ReplayRefused, match="the correction is not a valid payment"):
            replay(settings, found[False, None, False], correction=b"[]", actor="ann", dry_run=False)
        assert dead_letter(settings, found[True, None, False]).masked
        assert [] == list(committed(settings, PAYMENTS))
