"""The web pages of real workers over real HTTP."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.halts import Halts
from support.patient_worker import PATIENT
from support.shown import wait_shown
from support.system import CALM, Payments, System, WorkerProcess, payment
from support.topics import wait_settled
from support.web_client import Answer, get

from faust_exactly_once import partition_of
from streamsocial_billing.domain.times import with_iso
from streamsocial_billing.kafka.committed import CommittedLog

PARTITIONS = 4
TOKEN = "a-token-that-nobody-guesses"
HOP = {"X_Exactly_Once_Hop": "1"}


@pytest.fixture(scope="module")
def system(broker: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two workers that share four partitions; a hundred payments are handled."""
    folder = tmp_path_factory.mktemp("views")
    options: dict[str, Any] = {"workers": 2, "partitions": PARTITIONS, **CALM}
    with System(broker, folder, f"views-{time.time_ns()}", **options) as system:
        be_patient(system)
        system.start()
        both_share(system)
        system.submit(Payments(seed=5).take(100))
        system.wait_answered()
        wait_shown(system)
        yield system


def be_patient(system: System) -> None:
    """A worker that is only slow is not away: what it says is waited for."""
    for worker in system.workers:
        worker.program = PATIENT


def both_share(system: System) -> None:
    """Return when each worker is ready with its half."""
    for worker in system.workers:
        wait_until(partial(has_its_half, worker))


def has_its_half(worker: WorkerProcess) -> bool:
    """Ready, with half of the partitions."""
    answer = get(worker.web_port, "/ready")
    return answer.status == 200 and len(answer.json()["assigned"]) == PARTITIONS // 2


def ready(worker: WorkerProcess) -> Any:
    """The body of /ready."""
    return get(worker.web_port, "/ready").json()


def wait_until(true: Callable[[], bool], within_s: float = 120) -> None:
    """Ask again and again; a refused connection counts as no."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if true():
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not become true")


def folded(system: System, table: str) -> dict[str, bytes]:
    """The committed content of a table, from its changelog."""
    log = CommittedLog(system.settings)
    topic = system.settings.changelog(table)
    wait_settled(system.settings, topic)
    ends = log.ends((topic, p) for p in range(PARTITIONS))
    return {(m.key() or b"").decode(): m.value() or b"" for m in log.read(ends)}


def owner_and_other(system: System, user_id: str) -> tuple[WorkerProcess, WorkerProcess]:
    """The worker that owns the user's partition, the other one."""
    first, second = system.workers
    here = partition_of(user_id.encode(), PARTITIONS) in ready(first)["assigned"]
    return (first, second) if here else (second, first)


@pytest.mark.parametrize(("table", "path"), [("charges", "/users/{}/charges"), ("payments", "/payments/{}")])
def test_a_look_up_answers_what_was_committed_on_either_worker(system: System, table: str, path: str) -> None:
    """Every row of the changelog's fold comes back, from the owner or in one hop; no fingerprint."""
    everything = folded(system, table)
    assert len(everything) > 20
    for worker in system.workers:
        for key, value in everything.items():
            answer = get(worker.web_port, path.format(key))
            assert (200, "application/json") == (answer.status, answer.headers.get_content_type())
            stored, shown = with_iso(orjson.loads(value)), answer.json()
            stored.pop("fingerprint", None)
            assert stored == {name: shown.get(name) for name in stored}
            assert "fingerprint" not in shown


@pytest.mark.parametrize("path", ["/users/nobody/charges", "/payments/nobody/no", "/payments/user-1/no"])
def test_what_is_unknown_is_404_on_either_worker(system: System, path: str) -> None:
    """Unknown users and unknown payments."""
    for worker in system.workers:
        answer = get(worker.web_port, path)
        assert (404, "not_found") == (answer.status, answer.json()["error"])
        assert {"type", "title", "status", "error", "detail"} == set(answer.json())


def test_a_request_that_was_passed_on_is_not_passed_on_again(system: System) -> None:
    """With the mark of a hop a worker that is not the owner answers 503; the owner answers."""
    user_id = next(iter(folded(system, "charges")))
    owner, other = owner_and_other(system, user_id)
    at_owner, at_other = (get(w.web_port, f"/users/{user_id}/charges", **HOP) for w in (owner, other))
    assert (200, 503, "1") == (at_owner.status, at_other.status, at_other.headers["Retry-After"])
    assert "owner_unavailable" == at_other.json()["error"]


def test_health_is_not_readiness(system: System) -> None:
    """/health says that the process lives; /ready names every partition once."""
    for worker in system.workers:
        assert (200, {"status": "alive"}) == (_health(worker).status, _health(worker).json())
    bodies = [ready(worker) for worker in system.workers]
    assert list(range(PARTITIONS)) == sorted(p for body in bodies for p in body["assigned"])
    assert [True, True] == [body["ready"] for body in bodies]
    assert [[], []] == [body["recovering"] for body in bodies]
    assert {"running"} == {task["state"] for body in bodies for task in body["tasks"]}
    assert [{"simulated": "closed"}] * 2 == [body["gateways"] for body in bodies]


def test_the_metrics_count_what_was_committed(system: System) -> None:
    """Each event of the two workers once, in Prometheus' text format, without any user's data."""

    def committed() -> float:
        return sum(_series(worker, "exactly_once_committed_units_total") for worker in system.workers)

    wait_until(lambda: committed() >= system.sent)
    assert system.sent == committed()
    for worker in system.workers:
        answer = get(worker.web_port, "/metrics")
        assert "text/plain; version=0.0.4; charset=utf-8" == answer.headers["Content-Type"]
        assert (b"user-" in answer.body, b"pay-" in answer.body) == (False, False)
        assert PARTITIONS == _series(worker, "exactly_once_partitions")
        assert b'billing_gateway_state{gateway="simulated",state="closed"} 1.0' in answer.body


def test_the_audit_of_either_worker_tells_of_all_partitions(system: System) -> None:
    """`/audit` has the tasks of the worker that is asked, `?workers=all` those of both; no user's data."""

    path = "/audit?workers=all"

    def is_through(worker: WorkerProcess) -> bool:
        seen.append(get(worker.web_port, path))
        audit = seen[-1].json()
        return bool(audit["rows_at"]) and system.sent == audit["payments"]["handled"]

    seen: list[Answer] = []
    for worker, other in (system.workers, reversed(system.workers)):
        wait_until(partial(is_through, worker))
        everywhere, here = seen[-1], get(worker.web_port, "/audit").json()
        assert (b"user-", b"pay-") == tuple(m for m in (b"user-", b"pay-") if m not in everywhere.body)
        audit = everywhere.json()
        assert (list(range(PARTITIONS)), True) == (audit["here"], audit["ok"])
        assert (0, 0) == (audit["payments"]["lost"], audit["payments"]["double"])
        assert sorted(ready(worker)["assigned"]) == here["here"]
        assert sorted(ready(other)["assigned"]) == sorted(set(audit["here"]) - set(here["here"]))


def test_the_dashboard_is_ours(system: System) -> None:
    """`/` is an HTML page without anything from elsewhere."""
    answer = get(system.worker.web_port, "/")
    assert (200, "text/html", "utf-8") == (
        answer.status, answer.headers.get_content_type(), answer.headers.get_content_charset(),
    )  # fmt: skip
    page = answer.body.decode()
    assert "StreamSocial" in page
    assert "https://" not in page


def test_the_status_of_either_worker_tells_of_the_whole_system(system: System) -> None:
    """Both workers, every partition with its owner, the gateway, one finding: all is well. No user's data."""

    def is_well(worker: WorkerProcess) -> bool:
        seen.append(get(worker.web_port, "/status"))
        return bool(seen[-1].json()["ok"])

    seen: list[Answer] = []
    for worker in system.workers:
        wait_until(partial(is_well, worker))
        answer = seen[-1]
        assert (b"user-", b"pay-") == tuple(m for m in (b"user-", b"pay-") if m not in answer.body)
        status = answer.json()
        assert (["all_well"], "ok") == ([one["code"] for one in status["findings"]], status["severity"])
        assert [(p, "running") for p in range(PARTITIONS)] == [
            (one["partition"], one["state"]) for one in status["partitions"]
        ]
        assert [True, True] == [one["answers"] for one in status["workers"]]
        assert {one["owner"] for one in status["partitions"]} == {one["url"] for one in status["workers"]}
        assert [("simulated", "closed")] == [(one["name"], one["state"]) for one in status["gateways"]]
        assert (True, True) == (status["kafka"]["answers"], status["assignment"]["current"])
        assert status["at_iso"].endswith("Z")


def test_a_browser_gets_a_page_from_either_worker_curl_gets_json(system: System) -> None:
    """By the header Accept, also where the owner is another worker; a refusal is a page too."""
    user_id = next(iter(folded(system, "charges")))
    browser = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
    for worker in system.workers:
        shown = get(worker.web_port, f"/users/{user_id}/charges", **browser)
        assert (200, "text/html", "Accept") == (
            shown.status, shown.headers.get_content_type(), shown.headers["Vary"],
        )  # fmt: skip
        assert f"<h1 class=\"wrap\">Charges of {user_id}</h1>" in shown.body.decode()
        plain = get(worker.web_port, f"/users/{user_id}/charges", Accept="*/*")
        assert ("application/json", user_id) == (plain.headers.get_content_type(), plain.json()["user_id"])
        missing = get(worker.web_port, "/users/nobody/charges", **browser)
        assert (404, "text/html") == (missing.status, missing.headers.get_content_type())
        nowhere = get(worker.web_port, "/nowhere", **browser)
        assert (404, "text/html") == (nowhere.status, nowhere.headers.get_content_type())


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-Ip", "Via"])
def test_without_a_token_a_proxied_request_is_not_loopback(system: System, header: str) -> None:
    """A forwarding header means somebody else asks: 401, even for what is unknown; state stays public."""
    for path in ("/users/user-1/charges", "/payments/user-1/pay-1", "/users/nobody/charges"):
        answer = get(system.worker.web_port, path, **{header: "127.0.0.1"})
        assert (401, "no_access") == (answer.status, answer.json()["error"])
    for path in ("/health", "/ready", "/metrics", "/audit"):
        assert 200 == get(system.worker.web_port, path, **{header: "127.0.0.1"}).status


def test_without_a_token_only_loopback_reads(broker: str, tmp_path: Path, unique_name: str) -> None:
    """A worker that is open to the network refuses user data to an address that is not loopback."""
    address = own_address()
    with System(broker, tmp_path, unique_name, partitions=1, **CALM) as system:
        system.worker.options = ("--web-bind=0.0.0.0",)
        system.start()
        system.submit([payment("u1", "p1")])
        system.wait_answered()
        wait_shown(system)
        port = system.worker.web_port
        assert 200 == get(port, "/users/u1/charges").status
        assert 401 == get(port, "/users/u1/charges", host=address).status
        assert 200 == get(port, "/health", host=address).status


def test_with_a_token_every_reader_needs_it(broker: str, tmp_path: Path, unique_name: str) -> None:
    """Loopback is no excuse; the hop to the owner carries the token along."""
    options: dict[str, Any] = {"workers": 2, "partitions": PARTITIONS, "BILLING_API_TOKEN": TOKEN, **CALM}
    with System(broker, tmp_path, unique_name, **options) as system:
        be_patient(system)
        system.start()
        both_share(system)
        system.submit([payment(f"u{n}", "p1") for n in range(20)])
        system.wait_answered()
        wait_shown(system, Authorization=f"Bearer {TOKEN}")
        for worker in system.workers:
            for user_id in (f"u{n}" for n in range(20)):
                assert 401 == _with(worker, user_id, None).status
                assert 401 == _with(worker, user_id, "Bearer wrong").status
                assert 401 == _with(worker, user_id, TOKEN).status
                assert user_id == _with(worker, user_id, f"Bearer {TOKEN}").json()["user_id"]
            assert 200 == _with(worker, "u1", f"Bearer {TOKEN}", X_Forwarded_For="10.0.0.1").status
            assert TOKEN not in worker.log_file.read_text()


def test_a_user_whose_worker_is_gone_is_unavailable_then_back(
    broker: str, tmp_path: Path, unique_name: str
) -> None:
    """503 with Retry-After while the partition has no owner, not an error; 200 from its next owner."""
    # the partition has no owner for as long as the session lasts: time enough to ask for it
    with System(broker, tmp_path, unique_name, workers=2, partitions=PARTITIONS, **CALM) as system:
        system.start()
        both_share(system)
        system.submit([payment(f"u{n}", "p1") for n in range(20)])
        system.wait_answered()
        wait_shown(system)
        users = [f"u{n}" for n in range(20)]
        away = next(u for u in users if owner_and_other(system, u)[0] is system.workers[1])
        path = f"/users/{away}/charges"
        before = get(system.worker.web_port, path).body
        system.workers[1].kill()
        seen: list[Answer] = []

        def is_back() -> bool:
            seen.append(get(system.worker.web_port, path))
            return seen[-1].status == 200

        wait_until(is_back)
        gone, back = seen[:-1], seen[-1]
        assert {503} == {answer.status for answer in gone}
        assert {"1"} == {answer.headers["Retry-After"] for answer in gone}
        assert before == back.body


def test_a_worker_is_not_ready_before_its_assignment(broker: str, tmp_path: Path, unique_name: str) -> None:
    """From the first answer on, until its task is assigned and has recovered: 503, look-ups too; then 200."""
    with System(broker, tmp_path, unique_name, partitions=1) as system:
        halts, port = Halts(tmp_path / "halts"), system.worker.web_port
        system.worker.program = halts.program
        seen: list[tuple[Answer, Answer]] = []

        def look() -> Answer:
            seen.append((get(port, "/ready"), get(port, "/users/u1/charges")))
            return seen[-1][0]

        with halts.asked("after_recovery"):  # its task waits there, however fast or slow the machine is
            system.worker.start()
            port = system.worker.web_port
            wait_until(lambda: 0 in look().json()["recovering"])
            halts.wait("after_recovery")
            look()
        assert {(503, 503)} == {(state.status, page.status) for state, page in seen}
        bodies = [state.json() for state, _ in seen]
        assert {False} == {body["ready"] for body in bodies}
        assert [] == [body for body in bodies if body["assigned"] != body["recovering"]]
        assert [0] == bodies[-1]["recovering"]
        wait_until(lambda: 200 == look().status)
        state, page = seen[-1]
        body = state.json()
        assert ([0], [], True, 404) == (body["assigned"], body["recovering"], body["ready"], page.status)


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        address: str = probe.getsockname()[0]
    return address


def _series(worker: WorkerProcess, name: str) -> float:
    """The sum of a metric's series in one scrape."""
    text = get(worker.web_port, "/metrics").body.decode()
    families = text_string_to_metric_families(text)
    return sum(one.value for family in families for one in family.samples if one.name == name)


def _health(worker: WorkerProcess) -> Answer:
    return get(worker.web_port, "/health")


def _with(worker: WorkerProcess, user_id: str, authorization: str | None, **headers: str) -> Answer:
    given = headers if authorization is None else {"Authorization": authorization, **headers}
    return get(worker.web_port, f"/users/{user_id}/charges", **given)


def test_the_changelog_holds_json(system: System) -> None:
    """What the pages give is one JSON object each."""
    assert {dict} == {type(orjson.loads(value)) for value in folded(system, "charges").values()}
