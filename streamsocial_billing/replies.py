"""What is answered over HTTP, before a web server puts it into its own words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

RETRY_AFTER_S: Final = 1


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, a JSON body, headers."""

    status: int
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


def refusal(status: int, error: str, detail: str, **more: Any) -> Reply:
    """A refusal: `error` is a code for machines, `detail` a text for people; neither holds a card number."""
    return Reply(status, {"error": error, "detail": detail, **more})


def later(error: str, detail: str) -> Reply:
    """503 with the seconds after which sending the same again makes sense."""
    return Reply(503, {"error": error, "detail": detail}, {"Retry-After": str(RETRY_AFTER_S)})
