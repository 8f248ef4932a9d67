"""Two workers, each of an earlier release or of this one, with every kind of record on its way."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.beside_us import charge_beside_us, refund_beside_us
from support.producers import idempotent_producer
from support.releases import Release, environment_of, source_of
from support.system import Payments, Stream, System, WorkerProcess, payment
from support.until import until
from support.web_client import get

from streamsocial_billing.audit.run import run_audit
from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.domain.gateway_events import GatewayEvent
from streamsocial_billing.operations.client import send_command
from streamsocial_billing.operations.commands import append_command, ordered_now
from streamsocial_billing.operations.kill_switch import START, STOP
from streamsocial_billing.operations.resolve import RESOLVE
from streamsocial_billing.settings import GATEWAY_EVENTS
from streamsocial_billing.subscriptions.commands import subscription_command, subscriptions_of

TROUBLE = re.compile(r"Traceback|CRITICAL|\bERROR\b|dead letter|committed offset|on every try")
BY_DESIGN = re.compile(
    r"is parked\b.* waits for a person"
    # a busy machine keeps a worker from its heartbeats: it has to join again, whatever the release
    r"|Heartbeat session expired|UNKNOWN_MEMBER_ID|ILLEGAL_GENERATION"
)
OLD_WAIT_S = 60


class Mixed(Payments):
    """Payments of which one in eight is a refund of a part of an earlier one; refunds are sent again, too.

    `first` are events that a test adds: they go next, in the thread that submits all the others.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.first: list[PaymentEvent] = []

    def _one(self) -> PaymentEvent:
        if self.first:
            return self.first.pop()
        if not self.made or self.random.random() > 1 / 8:
            return super()._one()
        charge = self.random.choice(self.made)
        if charge.action == "refund":
            return charge
        self._number += 1
        event = payment(
            charge.user_id, f"ref-{self._number}", action="refund", refund_of=charge.payment_id,
            amount_minor=1 + charge.amount_minor // 3, currency=charge.currency,
            payment_method=charge.payment_method, product=charge.product,
        )  # fmt: skip
        self.made.append(event)
        return event


class Upgrade:
    """The system, what is done to it, what must be true of it after each step."""

    def __init__(self, system: System, release: Release, folder: Path) -> None:
        self.system = system
        self._tree = source_of(release, folder)
        new = system.worker.environment
        self._environments = {"new": new, "old": environment_of(self._tree, new)}
        # the console script names a function of this release; -P: this checkout must not hide the other's
        module = (sys.executable, "-P", "-m", "streamsocial_billing")
        self._programs = {"new": system.worker.program, "old": module}
        self._payments = Mixed(7)
        self._round = 0
        self._renewals = 0  # payments that workers sent for subscriptions, not in `system.sent` yet

    def start(self, worker: WorkerProcess, release: str) -> None:
        """Start a worker on `old` or `new`; return when a task of it runs."""
        worker.environment, worker.program = self._environments[release], self._programs[release]
        worker.start()
        worker.wait_ready()

    @contextmanager
    def load(self) -> Iterator[None]:
        """Payments all the time, so that a step always meets work under way; answered, settled at the end."""
        system = self.system
        before = system.answered()
        with Stream(system, self._payments, chunk=5, ahead=40, most=system.sent + 5_000):
            system.wait_answered(before + 40)
            yield
            system.wait_answered(system.answered() + 40)
        system.sent += self._renewals
        self._renewals = 0
        system.wait_answered()

    def orders(self) -> None:
        """A gateway stopped and started, a payment settled by hand, a subscription made and cancelled."""
        self._round += 1
        system, user = self.system, f"person-{self._round}"
        parked = payment(user, "parked")
        ref = charge_beside_us(system, parked)
        self._payments.first.append(parked)
        until(lambda: user in {one["user_id"] for one in system.results_of("parked")}, "a parked payment")
        self._carried_out(STOP, None, gateway="simulated")
        self._carried_out(START, None, gateway="simulated", account=None)
        self._carried_out(RESOLVE, user, payment_id="parked", status="succeeded", gateway_ref=ref)
        self._subscribes_and_leaves(user)
        self._is_refunded_at_the_gateway(user, ref)

    def _carried_out(self, command: str, user_id: str | None, **details: Any) -> None:
        became = send_command(
            self.system.settings, ordered_now(command, "ann", "upgrade", user_id, **details), OLD_WAIT_S
        )
        assert became.done(), became

    def _subscribes_and_leaves(self, user: str) -> None:
        """Not waited for by its answer, which the first release does not give: by the row that it makes."""
        settings = self.system.settings
        about = {"amount_minor": 999, "currency": "USD", "payment_method": "pm_card_visa", "product": "gift"}
        for command, details, state in (
            ("subscribe", about | {"gateway": "simulated", "interval": "month"}, "active"),
            ("unsubscribe", {"at_once": True}, "cancelled"),
        ):
            append_command(
                settings,
                subscription_command(
                    settings, command, user, "ann", "upgrade", subscription_id="s", **details
                ),
            )
            until(
                lambda state=state: (row := subscriptions_of(settings, user).get("s")) is not None  # type: ignore[misc]
                and row["state"] == state,
                f"{command} of {user}",
            )  # fmt: skip
        self._renewals += 1

    def _is_refunded_at_the_gateway(self, user: str, charge: str) -> None:
        """A person at the gateway gives money back; the message of it comes twice."""
        made = refund_beside_us(self.system, charge, 100, f"by-hand-{user}")
        report = GatewayEvent(
            event_id=f"evt_{made['id']}", gateway="simulated", kind="refund", status="succeeded",
            gateway_ref=made["id"], charge_ref=charge, user_id=user, charge_id="parked", amount_minor=100,
            currency="EUR", occurred_at=made["created"],
        )  # fmt: skip
        producer = idempotent_producer(self.system.settings.bootstrap)
        topic = self.system.settings.topic(GATEWAY_EVENTS)
        for _ in range(2):
            producer.produce(topic, report.to_bytes(), key=user.encode())
        assert 0 == producer.flush(60)
        producer.close()
        until(
            lambda: [made["id"]] == [
                one["gateway_ref"] for one in self.system.all_results()
                if one["origin"] == "external" and one["user_id"] == user
            ], f"the refund of {user} at the gateway",
        )  # fmt: skip

    def agrees(self) -> None:
        """Lost 0, charged twice 0 by both releases' audits; both read what either wrote, over HTTP, too."""
        system = self.system
        report = run_audit(system.settings, wait_s=90)
        assert () == report.problems, "\n".join(map(str, report.problems))
        assert (True, True, system.sent) == (report.ok, report.settled, report.events), report
        self._old_audit()
        for worker in system.workers:
            until(lambda one=worker: 200 == get(one.web_port, "/ready").status, "a worker is ready")  # type: ignore[misc]
        for user in {one["user_id"] for one in system.all_results()}:
            answers = [get(worker.web_port, f"/users/{user}/charges") for worker in system.workers]
            assert [200, 200] == [one.status for one in answers], answers
            first, second = ({k: one.json()[k] for k in ("money", "counts")} for one in answers)
            assert first == second

    def _old_audit(self) -> None:
        done = subprocess.run(
            [*self._programs["old"], "audit", "--wait", "60"], env=self._environments["old"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert 0 == done.returncode, done.stdout + done.stderr

    def finish(self) -> None:
        """The end: answered once each, in order, the disks as the changelogs, nothing in the logs."""
        system = self.system
        assert [] == system.dead_letters.records
        system.check_order()
        system.stop_workers()
        system.check_disk()
        for worker in system.workers:
            lines = worker.log_file.read_text(encoding="utf-8").splitlines()
            trouble = [one for one in lines if TROUBLE.search(one) and not BY_DESIGN.search(one)]
            assert [] == trouble, "\n".join([worker.name, *trouble])
