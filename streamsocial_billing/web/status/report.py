"""What one worker says of itself to the others: plain JSON, no user data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from faust_exactly_once import Layer
from streamsocial_billing.audit.watching import LiveAudit, as_json
from streamsocial_billing.domain.times import now_ms
from streamsocial_billing.payments.gateway_availability import Gatekeeper, GatewayStatus
from streamsocial_billing.payments.open_payments import Tally

Report = dict[str, Any]
"""See `Reporter.report`."""


class Reporter:
    """Collects what this worker knows by itself; from memory, so it works without Kafka."""

    def __init__(self, app: Any, layer: Layer, gatekeeper: Gatekeeper, live: LiveAudit) -> None:
        self._app = app
        self._layer = layer
        self._gatekeeper = gatekeeper
        self._live = live

    @property
    def url(self) -> str:
        """Where this worker's pages are, as the group knows it."""
        return str(self._app.conf.canonical_url).rstrip("/")

    def report(self) -> Report:
        """One worker's state; times in ms since the epoch.

        url, at       the worker, now
        total         how many partitions there are in all
        kafka         answers; since: since when it does not; last_contact; brokers: id, address, up, since:
                      since when it is not; partitions: those here that it leads
        assignment    at: when the group last shared the partitions out; owners: url by partition
        tasks         partition, state, why, stuck (None, or topic, offset, held_by, age_s)
        gateways      name, state, since, actor, reason
        open          by partition: gateway, status, count, oldest
        backlog       by partition: count (exact), unread (at most so many more), oldest
        books         the live audit of each task here, as /audit has them
        """
        contact, assignor = self._layer.connectivity, self._app.assignor
        owners = {str(p): str(assignor.url_of(p) or "").rstrip("/") for p in range(self._layer.partitions)}
        waiting = self._layer.waiting(self._live.topic)
        return {
            "url": self.url,
            "at": now_ms(),
            "total": self._layer.partitions,
            "kafka": {
                "answers": contact.away_since_ms is None, "since": contact.away_since_ms,
                "last_contact": contact.last_contact_ms,
                "brokers": self._layer.worker_status()["brokers"],
            },
            "assignment": {"at": assignor.assigned_at_ms, "owners": owners},
            "tasks": [_task(task) for task in self._layer.status()],
            "gateways": [_gateway(one) for one in self._gatekeeper.status()],
            "open": {
                str(p): list(_open(tally)) for p, tally in self._gatekeeper.open_counts.by_partition().items()
            },
            "backlog": {
                str(p): {"count": one.admitted, "unread": one.unread, "oldest": one.oldest_ms}
                for p, one in waiting.items()
            },
            "books": [as_json(checked, self._live.topic) for checked in self._live.tasks()],
        }  # fmt: skip


def _task(task: Mapping[str, Any]) -> dict[str, Any]:
    oldest, stuck = task["oldest"], None
    if task["alarm"] and oldest is not None:
        stuck = {name: oldest[name] for name in ("topic", "offset", "held_by")} | {"age_s": oldest["gap_s"]}
    return {
        "partition": task["partition"], "state": task["state"], "why": task["why"], "stuck": stuck,
    }  # fmt: skip


def _gateway(one: GatewayStatus) -> dict[str, Any]:
    return {
        "name": one.name, "state": one.state, "since": one.since_ms, "actor": one.actor, "reason": one.reason,
    }  # fmt: skip


def _open(tally: Tally) -> Iterable[dict[str, Any]]:
    for (gateway, status), count in sorted(tally.counts.items()):
        oldest = tally.oldest_ms.get((gateway, status))
        yield {"gateway": gateway, "status": status, "count": count, "oldest": oldest}
