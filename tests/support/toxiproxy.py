"""Starts toxiproxy (Go, MIT) on loopback: network faults between a worker and a gateway."""

from __future__ import annotations

import os
import time
from pathlib import Path
from types import TracebackType

from support.go_program import go_program
from support.system import free_port

from processes import ROOT
from processes.loopback import ask
from processes.process import Process

VERSION = "v2.12.0"
MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server"
CACHE = ROOT / ".servers" / f"toxiproxy-{VERSION}"


def install() -> Path:
    """The program, built once; skips (in CI: fails) where go is missing."""
    without_go = f"toxiproxy {VERSION} needs go: network faults to a gateway are not tested"
    return go_program(CACHE / "server", f"{MODULE}@{VERSION}", without_go)


class Toxiproxy:
    """One proxy to `upstream` (host:port), reached at `url`; use it in a `with`."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self._api = free_port()
        self.url = f"http://127.0.0.1:{free_port()}"

    def __enter__(self) -> Toxiproxy:
        command = [str(install()), "-host", "127.0.0.1", "-port", str(self._api)]
        self._process = Process("toxiproxy", command, Path(os.devnull))
        self._process.launch()
        deadline = time.monotonic() + 60
        while True:
            try:
                self._post("/proxies", {
                    "name": "gateway", "listen": self.url.removeprefix("http://"), "upstream": self._upstream,
                })  # fmt: skip
                return self
            except OSError:  # it does not listen yet
                if time.monotonic() > deadline or not self._process.running:
                    self._process.kill()
                    raise
                time.sleep(0.05)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()

    def poison(self, toxic: str, stream: str, **attributes: int) -> None:
        """Every connection has this fault from now on, those that are open too."""
        body = {"name": "fault", "type": toxic, "stream": stream, "attributes": attributes}
        self._post("/proxies/gateway/toxics", body)

    def heal(self) -> None:
        """No faults from now on."""
        self._post("/reset", {})

    def _post(self, path: str, body: object) -> None:
        ask(f"http://127.0.0.1:{self._api}{path}", body)
