"""One thing that is so now, in words for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

CRITICAL: Final = "critical"
"""Money is wrong, or payments are not handled: somebody has to act now."""
WARNING: Final = "warning"
"""Somebody should look; payments go on, or will by themselves."""
OK: Final = "ok"
"""Nothing is wrong."""
SEVERITIES: Final = (CRITICAL, WARNING, OK)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is so now.

    severity  CRITICAL, WARNING or OK
    code      for machines, one of CODES
    headline  for people, one short sentence
    detail    what is behind it: which partitions, which reason; may be empty
    since_ms  since when, ms since the epoch; None where that is not known
    action    what to do
    subject   what tells two findings of one code apart: a gateway, a worker, a partition
    """

    severity: str
    code: str
    headline: str
    detail: str = ""
    since_ms: int | None = None
    action: str = ""
    subject: str = ""

    def as_json(self) -> dict[str, Any]:
        """For those who read `/status`."""
        return {
            "severity": self.severity, "code": self.code, "headline": self.headline, "detail": self.detail,
            "since": self.since_ms, "action": self.action, "subject": self.subject,
        }  # fmt: skip


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
