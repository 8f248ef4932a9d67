"""The plan by which the simulated gateway misbehaves.

Pure: the same settings and seed give the same faults in the same order of requests.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import Enum


class Fault(Enum):
    """What goes wrong with one POST; the first three happen before a charge, the others after it."""

    RATE_LIMIT = "rate_limit"
    CONFLICT = "conflict"
    ERROR_BEFORE = "error_before"
    DROP_AFTER_CHARGE = "drop_after_charge"
    TIMEOUT = "timeout"
    BAD_BODY = "bad_body"


_LIMITS: dict[str, float] = {"latency_ms": 60_000, "timeout_ms": 600_000, "retry_after_s": 3_600}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSettings:
    """Rates are 0..1 per POST and drawn one by one in the order of `Fault`: the first hit counts.

    `latency_ms` delays every POST. `timeout_ms` is how long a reply under TIMEOUT is held. `retry_after_s`
    is the header of a 429. Raises ValueError with the name of the setting and what is allowed.
    """

    latency_ms: float = 0
    error_before: float = 0
    drop_after_charge: float = 0
    timeout: float = 0
    conflict: float = 0
    rate_limit: float = 0
    bad_body: float = 0
    timeout_ms: float = 30_000
    retry_after_s: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            whole = name in {"seed", "retry_after_s"}
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise ValueError(f"{name}: a number is allowed{', a whole one' if whole else ''}")
            highest = _LIMITS.get(name, 1)
            if name != "seed" and not 0 <= value <= highest:
                raise ValueError(f"{name}: {value!r} is not within 0..{highest:g}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> FaultSettings:
        """Settings from a JSON object; what is absent takes its default, unknown names are refused."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise ValueError(f"{name}: unknown, allowed are {', '.join(names)}")
        return cls(**values)  # type: ignore[arg-type]


class FaultPlan:
    """Draws the fault of each POST from its settings."""

    def __init__(self, settings: FaultSettings) -> None:
        self.settings = settings
        self._random = random.Random(settings.seed)  # noqa: S311 - a repeatable plan, not a secret
        self._rates = [(fault, float(getattr(settings, fault.value))) for fault in Fault]
        self._quiet = not any(rate for _, rate in self._rates)

    def draw(self) -> Fault | None:
        """The fault of the next POST; each draw uses up six numbers, whatever the rates."""
        if self._quiet:
            return None
        hits = [fault for fault, rate in self._rates if self._random.random() < rate]
        return hits[0] if hits else None
