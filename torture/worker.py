"""The worker under torture: the product's app with what a fault needs inside the process.

`python -m torture.worker FAUST_ARGUMENTS...`; the environment variable TORTURE_WORKER is a Spec in JSON.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from faust_exactly_once import batched, opening
from faust_exactly_once.producer import ConfluentProducer
from faust_exactly_once.units import Outgoing
from streamsocial_billing.app import create_app
from streamsocial_billing.cli.commands import the_settings
from streamsocial_billing.domain import payment_entry
from streamsocial_billing.gateways.simulated import SimulatedGateway
from streamsocial_billing.payments.unit_writer import UnitWriter
from torture.orders import Orders

VARIABLE: Final = "TORTURE_WORKER"
SCHEDULE_S: Final = (5,) * 1_000
"""Instead of the product's, whose third pause is two minutes: in the quiet end everything must drain."""
ADDED_TOPIC: Final = "next-release"
"""What the next release reads besides the sources of this one."""


@dataclass(frozen=True, slots=True)
class Spec:
    """What is special about one start of a worker.

    orders: the file that may name a point to die or to freeze at: `SIGKILL before_commit 2`.
    options: overrides of the layer's options.
    added_topic: it is of the release with one source topic more.
    clock_ahead_s: how much too late its records say they were made.
    stumbles: share of the handlers that raise amid their unit, as one with a bug would.
    mutant: the defect to put back in, by its name in torture.mutants; none: the product as it is.
    """

    orders: str
    options: Mapping[str, Any] = field(default_factory=dict)
    added_topic: bool = False
    clock_ahead_s: float = 0.0
    stumbles: float = 0.01
    mutant: str = ""

    def environment(self) -> dict[str, str]:
        """How it reaches the worker."""
        return {VARIABLE: json.dumps(asdict(self))}


class LateProducer(ConfluentProducer):
    """A producer on a machine whose clock is ahead: every record carries that machine's time."""

    ahead_s = 0.0

    def send(self, records: Iterable[Outgoing]) -> None:
        """Queue records with the wrong time."""
        super().send(record._replace(timestamp_ms=self._now_ms()) for record in records)

    def send_changes(self, topic: str, partition: int, changes: Mapping[bytes, bytes | None]) -> None:
        """Queue changelog records with the wrong time."""
        for key, value in changes.items():  # produce_batch takes no times
            self._deliveries.queued += 1
            self._live().produce(
                topic, value, key=key, partition=partition, timestamp=self._now_ms(),
                on_delivery=self._deliveries.on_change,
            )  # fmt: skip

    def _now_ms(self) -> int:
        return int((time.time() + self.ahead_s) * 1000)


class Stumble(Exception):
    """Raised amid a handler for no reason: the unit has to be emptied, then made again."""


def stumbling(answer: Callable[..., None], share: float, dice: random.Random) -> Callable[..., None]:
    """`UnitWriter.answer` that raises now and then: the entry is kept, nothing is answered yet."""

    def answer_or_raise(*args: Any, **kwargs: Any) -> None:
        if dice.random() < share:
            raise Stumble("amid the unit")
        answer(*args, **kwargs)

    return answer_or_raise


def add_source(app: Any, name: str) -> None:
    """One more source topic, whose events nobody does anything about."""

    @app.agent(batched(app.topic(name)))  # type: ignore[untyped-decorator]
    async def take(stream: Any) -> None:
        async for batch in stream:
            await batch.each(_nothing)


async def _nothing(_: Any) -> None:
    pass


def main() -> None:
    """Build the app as the spec says; then it is a Faust command."""
    spec = Spec(**json.loads(os.environ[VARIABLE]))
    if spec.mutant:
        from torture.mutants import install

        install(spec.mutant)
    if spec.clock_ahead_s:
        LateProducer.ahead_s = spec.clock_ahead_s
        opening.ConfluentProducer = LateProducer  # type: ignore[attr-defined]
    if spec.stumbles:
        dice = random.Random()  # noqa: S311 - any moment will do
        UnitWriter.answer = stumbling(UnitWriter.answer, spec.stumbles, dice)  # type: ignore[method-assign]
    payment_entry.SCHEDULE_S = SCHEDULE_S  # type: ignore[misc]
    settings = the_settings()
    gateway = SimulatedGateway(settings.simulator_url, max_connections=max(1, settings.max_in_flight // 2))
    app = create_app(
        settings, {gateway.name: gateway}, probe=Orders(Path(spec.orders)).probe, **spec.options
    )
    if spec.added_topic:
        add_source(app, settings.topic(ADDED_TOPIC))
    app.main()


if __name__ == "__main__":
    main()
