"""Listeners of a cluster's nodes beside the plain one: one per caller, so that each can be cut off alone.

A client stays on the listener that it came in by: metadata names the port that is advertised there, and that
may be a proxy's. The same holds between nodes: a broker calls its peers, and the controller, by the listener
that its own settings name. So every pair of caller and node has an address of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broker.ports import stable_ports

CONTROLLER_ID: Final = 100

Through = Callable[[str, int, int], int]
"""Caller (see `caller_of`), id of the node that it calls, port on which that node listens for it; returns the
port that the caller is told instead: that of a proxy, or the same."""


def caller_of(broker: int) -> str:
    """How a broker is called where it calls its peers or the controller: `broker-2`."""
    return f"broker-{broker}"


@dataclass(frozen=True, slots=True)
class Listener:
    """Where a node listens for one caller, and the port that this caller is told."""

    name: str
    port: int
    told: int


class Listeners:
    """All of them: each broker's for each of `clients` and for each broker; the controller's for each broker.

    A broker reaches itself past `through`.
    """

    def __init__(self, brokers: int, clients: Sequence[str], through: Through) -> None:
        self._brokers = range(1, brokers + 1)
        peers = [caller_of(number) for number in self._brokers]
        pairs = [(caller, node) for node in self._brokers for caller in (*clients, *peers)]
        pairs += [(caller, CONTROLLER_ID) for caller in peers]
        self._of: dict[tuple[str, int], Listener] = {}
        for (caller, node), port in zip(pairs, stable_ports(len(pairs)), strict=True):
            told = port if caller == caller_of(node) else through(caller, node, port)
            self._of[caller, node] = Listener(_name(caller, node), port, told)

    def bootstrap(self, client: str) -> list[int]:
        """The ports of all brokers as this client is told them."""
        return [self._of[client, number].told for number in self._brokers]

    def settings(self, node: int) -> dict[str, str]:
        """Lines of server.properties for a broker or the controller, in addition to its plain listener."""
        own = "CONTROLLER" if node == CONTROLLER_ID else "CLIENT"
        plain = f"{own}://127.0.0.1:{{port}}"
        there = [one for (_, to), one in self._of.items() if to == node]
        names = ["CLIENT", "CONTROLLER", *dict.fromkeys(one.name for one in self._of.values())]
        bound = [f"{one.name}://127.0.0.1:{one.port}" for one in there]
        told = [f"{one.name}://127.0.0.1:{one.told}" for one in there]
        lines = {
            "listeners": ",".join([plain, *bound]),
            "advertised.listeners": ",".join([plain, *told]),
            "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in names),
        }
        if node == CONTROLLER_ID:
            own_names = ["CONTROLLER", *(one.name for one in there)]
            return lines | {"controller.listener.names": ",".join(own_names)}
        controller = self._of[caller_of(node), CONTROLLER_ID]
        return lines | {
            "inter.broker.listener.name": self._of[caller_of(node), node].name,
            # a broker uses the first one of its own list, whatever the controller's names are
            "controller.listener.names": controller.name,
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller.told}",
        }


def _name(caller: str, node: int) -> str:
    kind = "CONTROLLER_FOR" if node == CONTROLLER_ID else "FROM"
    return f"{kind}_{caller.upper().replace('-', '_')}"
