"""The web port of a worker, taken before anything else starts."""

import socket
from typing import Any
from weakref import WeakKeyDictionary

from .errors import SetupRefused
from .worker_folder import reason_of

_ports: WeakKeyDictionary[Any, socket.socket] = WeakKeyDictionary()


def keep_port(app: Any, bound: socket.socket) -> None:
    """Hold the port for a web driver that knows `take_port`; Faust's own binds anew."""
    if getattr(app.web, "takes_port", False):
        _ports[app] = bound
    else:
        bound.close()


def take_port(app: Any) -> socket.socket | None:
    """The listening socket of the web port, taken by `prepare`; None if there is none (any more)."""
    return _ports.pop(app, None)


def bind(host: str, port: int) -> socket.socket:
    """Take the port.

    Raises:
        SetupRefused: it is in use, or not ours to take.
    """
    try:
        return socket.create_server((host, port), reuse_port=False)
    except OSError as exc:
        raise SetupRefused(
            f"web port {port} on {host} cannot be used ({reason_of(exc)}): choose another --web-port"
        ) from exc
