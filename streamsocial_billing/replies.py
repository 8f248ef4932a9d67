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


def no_access() -> Reply:
    """Neither the API token nor a request from the machine itself (`views.access`)."""
    return refusal(401, "no_access", "needs the API token, or to come from this machine itself")


def owner_unavailable(partition: int, advice: str = "ask again") -> Reply:
    """503: the hop to the worker that owns the user failed."""
    detail = f"the worker that owns partition {partition} cannot be reached; {advice}"
    return later("owner_unavailable", detail)


def later(error: str, detail: str) -> Reply:
    """503 with the seconds after which sending the same again makes sense."""
    return Reply(503, {"error": error, "detail": detail}, {"Retry-After": str(RETRY_AFTER_S)})
