"""Waits until the pages of a worker show what results have told."""

from __future__ import annotations

from support.system import System
from support.until import until
from support.web_client import get


def wait_shown(system: System, **headers: str) -> None:
    """Return once each payment of the results so far is on its page.

    Pages read the tables of the worker, which stores what it has committed a moment after Kafka's readers see
    it: on a machine that stalls that moment is long.
    """
    port = system.worker.web_port
    for user, payment in {(one["user_id"], one["payment_id"]) for one in system.all_results()}:
        path = f"/payments/{user}/{payment}"
        until(lambda path=path: 200 == get(port, path, **headers).status, f"{path} is there")  # type: ignore[misc]
