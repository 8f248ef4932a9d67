"""The broker with one listener for each worker, reached through that worker's proxy.

A client stays on the listener that it came in by: its metadata names the advertised port, the proxy's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Final

from broker import LocalBroker
from broker.ports import stable_ports
from torture.proxy import Link, Proxies
from torture.replicas import OnlyBroker

ABORTS_EVERY_MS: Final = 5_000
"""How often the broker looks for transactions whose time is over (Kafka's default: 10 s). Not sooner than a
restarted broker has leaders again, or it would forget the markers, see markers.py."""
START_WITHIN_S: Final = 120.0
"""A broker that died waits for the end of its own session; on a busy machine Java takes its time as well."""


class ProxiedBroker:
    """One real broker, one link to it for each name; for a `with`."""

    count = 1

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.links: dict[str, Link] = {}
        self._names = list(names)
        self._folder = folder
        self._proxies = Proxies()

    def __enter__(self) -> ProxiedBroker:
        ports = stable_ports(1 + len(self._names))
        self._proxies.__enter__()
        try:
            self.links = {
                name: self._proxies.add(port) for name, port in zip(self._names, ports[1:], strict=True)
            }
            self.broker = LocalBroker(self._folder, ports[0], self._settings())
            self.broker.start(START_WITHIN_S)
        except BaseException:
            self._proxies.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.broker.stop()
        self._proxies.__exit__(None, None, None)

    @property
    def links_of_clients(self) -> Mapping[str, Link]:
        """By the name of the client."""
        return self.links

    def away(self) -> list[str]:
        """Nothing to say beside the fault itself."""
        return []

    def settle(self) -> None:
        """After the last fault: it runs."""

    @property
    def replicas(self) -> OnlyBroker:
        """Where everything lies."""
        return OnlyBroker(self.broker.data_dir / "log", self.broker.port)

    @property
    def own_url(self) -> str:
        """Address past every proxy, as Faust writes it."""
        return self.broker.url

    @property
    def bootstrap(self) -> str:
        """Address past every proxy, `host:port`."""
        return self.broker.bootstrap

    def url(self, name: str) -> str:
        """Address through this name's proxy, as Faust writes it."""
        return f"kafka://127.0.0.1:{self.links[name].port}"

    def _settings(self) -> dict[str, str]:
        bound = [f"{_listener(n)}://127.0.0.1:{link.broker_port}" for n, link in self.links.items()]
        told = [f"{_listener(n)}://127.0.0.1:{link.port}" for n, link in self.links.items()]
        own = ["CLIENT://127.0.0.1:{port}", "CONTROLLER://127.0.0.1:{controller_port}"]
        names = ["CLIENT", "CONTROLLER", *(_listener(name) for name in self.links)]
        return {
            "listeners": ",".join([*own, *bound]),
            "advertised.listeners": ",".join([*own, *told]),
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": str(ABORTS_EVERY_MS),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
        }


def _listener(name: str) -> str:
    return f"THROUGH_{name.upper()}"
