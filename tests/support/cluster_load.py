"""A steady load of payments in the three ways in which they come in: library, `submit`, `POST /payments`.

Whoever sends does what a shop does: what was not accepted is sent again under the same id until it is.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from support.system import Payments, WorkerProcess
from support.web_client import post

from streamsocial_billing.domain.events import PaymentEvent
from streamsocial_billing.intake.identity import IntakeError
from streamsocial_billing.intake.producer import IntakeOutcomeUnknown

ACCEPTED, UNKNOWN, REFUSED, UNREACHED = "accepted", "unknown", "refused", "unreached"
WAYS = ("library", "submit", "POST")
COMMAND_ENDS_WITHIN_S = 60.0
GIVE_UP_S = 90.0
AGAIN_S = 0.3


@dataclass(frozen=True, slots=True)
class Call:
    """One attempt to hand payments in.

    way   library, submit or POST
    at    when it began, time.monotonic()
    took  seconds
    said  ACCEPTED, UNKNOWN (it may be on the log), REFUSED, UNREACHED (no worker listens there)
    text  what the answer said, where it was not ACCEPTED
    """

    way: str
    at: float
    took: float
    said: str
    text: str = ""


Attempt = Callable[[list[PaymentEvent]], tuple[str, str]]
"""Sends payments once; says one of the four words, with a text."""


class Load:
    """Three senders, a thread each, from `with` to its end, which waits until all is accepted.

    `pause_s` is what each sender waits after a call, `ways` are the senders. Nothing is sent twice on
    purpose; loads of different seeds have different payments.
    """

    def __init__(
        self, submit: Callable[[list[PaymentEvent]], None], workers: Sequence[WorkerProcess],
        client: Path, environment: Mapping[str, str], seed: int, *, pause_s: float = 0.1,
        ways: Sequence[str] = WAYS,
    ) -> None:  # fmt: skip
        self.calls: list[Call] = []
        self.accepted: set[str] = set()
        self.given_up: list[str] = []
        self.began_at = 0.0
        self._payments = Payments(seed, resent=0, name=f"pay-{seed}")
        self._submit = submit
        self._workers = workers
        self._client = client
        self._environment = dict(environment)
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failures: list[BaseException] = []
        self._posts = 0
        plan: list[tuple[str, int, float, Attempt]] = [
            ("library", 3, pause_s, self._by_library),
            ("submit", 5, 10 * pause_s, self._by_command),
            *(("POST", 1, 2 * pause_s, self._by_post) for _ in workers),
        ]
        self._threads = [
            threading.Thread(target=self._run, args=sender, name=sender[0], daemon=True)
            for sender in plan if sender[0] in ways
        ]

    def __enter__(self) -> Load:
        self.began_at = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(GIVE_UP_S + COMMAND_ENDS_WITHIN_S)
        if kind is None and self._failures:
            raise self._failures[0]

    def of(self, said: str, way: str | None = None) -> list[Call]:
        """The calls so far that were answered so."""
        return [call for call in list(self.calls) if call.said == said and way in (None, call.way)]

    def slowest(self, way: str) -> float:
        """Seconds of the slowest call in this way; 0 without calls."""
        return max((call.took for call in list(self.calls) if call.way == way), default=0.0)

    def _run(self, way: str, count: int, pause_s: float, attempt: Attempt) -> None:
        try:
            while not self._stop.wait(pause_s):
                with self._lock:
                    payments = self._payments.take(count)
                self._hand_in(way, payments, attempt)
        except BaseException as exc:
            self._failures.append(exc)

    def _hand_in(self, way: str, payments: list[PaymentEvent], attempt: Attempt) -> None:
        """Until they are accepted."""
        give_up = time.monotonic() + GIVE_UP_S
        while time.monotonic() < give_up:
            began = time.monotonic()
            said, text = attempt(payments)
            self.calls.append(Call(way, began, time.monotonic() - began, said, text))
            if said == ACCEPTED:
                self.accepted.update(one.payment_id for one in payments)
                return
            time.sleep(AGAIN_S)
        self.given_up += [one.payment_id for one in payments]

    def _by_library(self, payments: list[PaymentEvent]) -> tuple[str, str]:
        try:
            self._submit(payments)
        except IntakeOutcomeUnknown as error:
            return UNKNOWN, str(error)
        except IntakeError as error:
            return REFUSED, str(error)
        return ACCEPTED, ""

    def _by_command(self, payments: list[PaymentEvent]) -> tuple[str, str]:
        program = str(Path(sys.executable).with_name("streamsocial-billing"))
        try:
            done = subprocess.run(
                [program, f"--datadir={self._client}", "submit", "-"], env=self._environment,
                input=b"".join(one.to_bytes() + b"\n" for one in payments), capture_output=True, check=False,
                timeout=COMMAND_ENDS_WITHIN_S,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return REFUSED, f"no answer in {COMMAND_ENDS_WITHIN_S:.0f} s"
        if done.returncode == 0:
            return ACCEPTED, ""
        text = done.stderr.decode(errors="replace").strip()
        return UNKNOWN if "outcome unknown" in text else REFUSED, f"exit code {done.returncode}: {text}"

    def _by_post(self, payments: list[PaymentEvent]) -> tuple[str, str]:
        with self._lock:
            self._posts += 1
            worker = self._workers[self._posts % len(self._workers)]
        [one] = payments
        try:
            answer = post(worker.web_port, "/payments", one.to_bytes(), Idempotency_Key=one.payment_id)
        except OSError as error:  # TimeoutError is one: the server is frozen
            return UNREACHED, f"{worker.name}: {error}"
        if answer.status in (200, 202):
            return ACCEPTED, ""
        text = f"{worker.name}: {answer.status} {answer.body.decode(errors='replace')}"
        return UNKNOWN if answer.status == 503 and b'"outcome_unknown"' in answer.body else REFUSED, text
