"""A cluster whose every connection passes a proxy: who talks to which broker can be cut pair by pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.cluster import LocalCluster
from broker.listeners import CONTROLLER_ID, caller_of
from torture.proxy import Link, Proxies


class ProxiedCluster:
    """Three brokers and a controller; one link per pair of caller and node; for a `with`.

    Callers are the names of `clients` and the brokers themselves (`broker-1`...), nodes are the brokers'
    numbers and CONTROLLER_ID. `cluster.bootstrap` goes past every proxy, `cluster.bootstrap_for(client)`
    through them. A cut resets connections and refuses new ones; where it is `silent`, connections stay open
    and nothing passes. It lasts beside whatever other trouble a link has.
    """

    def __init__(
        self, folder: Path | str, clients: Sequence[str], settings: Mapping[str, str] | None = None
    ) -> None:
        self.links: dict[tuple[str, int], Link] = {}
        self._clients = tuple(clients)
        self._folder = folder
        self._settings = settings
        self._proxies = Proxies()

    def __enter__(self) -> Self:
        self._proxies.__enter__()
        try:
            self.cluster = LocalCluster(
                self._folder, 3, 0, self._settings, clients=self._clients, through=self._link
            )
            self.cluster.start(120.0)
        except BaseException:
            self._proxies.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.cluster.stop()
        finally:
            self._proxies.__exit__(None, None, None)

    def cut_from_clients(self, number: int, *, silent: bool = False) -> None:
        """No client reaches this broker; its peers and the controller do."""
        self._cut([link for (caller, to), link in self.links.items()
                   if to == number and caller in self._clients], silent)  # fmt: skip

    def cut_from_peers(self, number: int, *, controller: bool = True, silent: bool = False) -> None:
        """Neither does this broker reach its peers (and the controller) nor they it; clients do.

        With the controller its partitions move at the end of its session. Without, it goes on to lead and
        loses its followers after `replica.lag.time.max.ms` (Kafka's default: 30 s).
        """
        own = caller_of(number)
        self._cut([link for (caller, to), link in self.links.items()
                   if (to == number and caller not in self._clients)
                   or (caller == own and (controller or to != CONTROLLER_ID))], silent)  # fmt: skip

    def heal(self) -> None:
        """Let everything pass again."""
        for link in self.links.values():
            link.separate()

    def _link(self, caller: str, node: int, port: int) -> int:
        link = self.links[caller, node] = self._proxies.add(port)
        return link.port

    def _cut(self, links: Sequence[Link], silent: bool) -> None:
        for link in links:
            link.separate("silent" if silent else "refused")
