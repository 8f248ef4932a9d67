"""Makes one state of the system out of what its workers say: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from streamsocial_billing.audit.live import Break
from streamsocial_billing.web.status.peers import Peer
from streamsocial_billing.web.status.report import Report
from streamsocial_billing.web.status.state import (
    NO_WORKER,
    NOT_KNOWN,
    BrokerAway,
    GatewayState,
    Group,
    Partition,
    State,
    Stuck,
    Worker,
)

BADNESS = ("closed", "half_open", "not_configured", "open", "account_changed", "stopped")
"""States of a gateway; where workers differ, the last of these that one of them says stands."""


def merged(
    own: Report, peers: Sequence[Peer], books: Mapping[int, Mapping[str, Any]],
    open_: Mapping[str, Sequence[Mapping[str, Any]]],
) -> State:  # fmt: skip
    """The state of the whole system.

    `own` is the report of the worker that was asked, `books` and `open_` are what was last reported of each
    partition, by anybody (`newest_books`, `newest_open`).
    """
    answers = [own, *(peer.report for peer in peers if peer.lost_ms is None and peer.report is not None)]
    owners = newest_assignment(answers)["owners"]
    groups = [group for found in open_.values() for group in found]
    return State(
        at_ms=own["at"],
        url=own["url"],
        total=own["total"],
        workers=tuple(_workers(own, peers, owners)),
        partitions=tuple(_partitions(own["total"], owners, answers, books)),
        gateways=tuple(_gateways(answers, groups)),
        breaks={number: tuple(Break(**one) for one in task["breaks"]) for number, task in books.items()},
        backlog=_backlog(answers),
        unknown=_open(groups, "unknown"),
        parked=_open(groups, "parked"),
        brokers=tuple(_brokers(answers)),
    )


def newest_assignment(reports: Iterable[Report]) -> Mapping[str, Any]:
    """How the partitions were last shared out, as far as these workers know."""
    assignments = [report["assignment"] for report in reports]
    found: Mapping[str, Any] = max(assignments, key=lambda one: one["at"] or 0)
    return found


def newest_books(reports: Iterable[Report]) -> dict[int, dict[str, Any]]:
    """The live audit of each partition as it was last reported by anybody."""
    tasks = [task for report in reports for task in report["books"]]
    return {task["partition"]: task for task in sorted(tasks, key=lambda one: one["checked_at"])}


def newest_open(reports: Iterable[Report]) -> dict[str, list[dict[str, Any]]]:
    """The open payments of each partition as they were last reported by anybody."""
    newest: dict[str, list[dict[str, Any]]] = {}
    for report in sorted(reports, key=lambda one: one["at"]):
        newest |= report["open"]
    return newest


def _workers(own: Report, peers: Sequence[Peer], owners: Mapping[str, str]) -> Iterable[Worker]:
    yield _worker(own["url"], own, None, owners)
    for peer in sorted(peers, key=lambda one: one.url):
        yield _worker(peer.url, peer.report, peer.lost_ms, owners)


def _worker(url: str, report: Report | None, lost_ms: int | None, owners: Mapping[str, str]) -> Worker:
    held = [task["partition"] for task in report["tasks"]] if report else []
    kafka = report["kafka"]["since"] if report and lost_ms is None else None
    answers = report is not None and lost_ms is None
    return Worker(
        url=url, answers=answers, since_ms=lost_ms, partitions=tuple(sorted(held)),
        assigned=url in owners.values(), kafka_lost_ms=kafka,
    )  # fmt: skip


def _partitions(
    total: int, owners: Mapping[str, str], answers: Iterable[Report], books: Mapping[int, Mapping[str, Any]]
) -> Iterable[Partition]:
    tasks = {(report["url"], task["partition"]): task for report in answers for task in report["tasks"]}
    urls = {report["url"] for report in answers}
    for number in range(total):
        owner = owners.get(str(number)) or None
        checked_ms = books[number]["checked_at"] if number in books else None
        task = tasks.get((owner, number)) if owner else None
        if owner is None:
            yield Partition(number, None, NO_WORKER, checked_ms=checked_ms)
        elif owner not in urls:
            yield Partition(number, owner, NOT_KNOWN, checked_ms=checked_ms)
        elif task is None:  # assigned this moment
            yield Partition(number, owner, "fencing", checked_ms=checked_ms)
        else:
            stuck = Stuck(**task["stuck"]) if task["stuck"] else None
            yield Partition(
                number=number, owner=owner, state=task["state"], why=task["why"], stuck=stuck,
                checked_ms=checked_ms,
            )  # fmt: skip


def _gateways(answers: Iterable[Report], groups: Iterable[Mapping[str, Any]]) -> Iterable[GatewayState]:
    said: dict[str, list[dict[str, Any]]] = {}
    for report in answers:
        for one in report["gateways"]:
            said.setdefault(one["name"], []).append(one)
    waiting: Counter[str] = Counter()
    for group in groups:
        waiting[group["gateway"]] += group["count"] if group["status"] == "unknown" else 0
    for name, views in sorted(said.items()):
        worst = max(views, key=lambda one: (_badness(one["state"]), one["since"] or 0))
        begun = [one["since"] for one in views if one["state"] == worst["state"] and one["since"] is not None]
        yield GatewayState(
            name=name, state=worst["state"], since_ms=min(begun, default=worst["since"]),
            actor=worst["actor"], reason=worst["reason"], waiting=waiting[name],
        )  # fmt: skip


def _brokers(answers: Iterable[Report]) -> Iterable[BrokerAway]:
    """Those that a worker does not reach; a worker of an older release says nothing of any."""
    known: set[int] = set()
    away: dict[int, list[tuple[str, dict[str, Any]]]] = {}
    for report in answers:
        for one in report["kafka"].get("brokers", ()):
            known.add(one["id"])
            if not one["up"]:
                away.setdefault(one["id"], []).append((report["url"], one))
    for number, views in sorted(away.items()):
        address = max(one["address"] for _, one in views)  # "" where a worker never knew it
        waiting = sorted({partition for _, one in views for partition in one["partitions"]})
        since_ms = min(one["since"] for _, one in views)
        urls = tuple(sorted(url for url, _ in views))
        yield BrokerAway(
            number=number, address=address, since_ms=since_ms, workers=urls, waiting=tuple(waiting),
            brokers=len(known),
        )  # fmt: skip


def _badness(state: str) -> int:
    """A state that only a later release knows comes last: it must not hide behind a good one."""
    return BADNESS.index(state) if state in BADNESS else len(BADNESS)


def _open(groups: Iterable[Mapping[str, Any]], status: str) -> Group:
    those = [group for group in groups if group["status"] == status]
    oldest = [group["oldest"] for group in those if group["oldest"] is not None]
    return Group(sum(group["count"] for group in those), min(oldest, default=None))


def _backlog(answers: Iterable[Report]) -> Group:
    waiting = [one for report in answers for one in report["backlog"].values()]
    oldest = [one["oldest"] for one in waiting if one["oldest"] is not None]
    return Group(sum(one["count"] + one["unread"] for one in waiting), min(oldest, default=None))
