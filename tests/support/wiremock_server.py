"""Starts WireMock (npm package wiremock, its standalone jar) on loopback, for stubs of PayPal."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any

from support.alone_in import alone_in
from support.announced_server import STARTS_WITHIN_S
from support.stripe_server import INSTALL_WITHIN_S, skip_or_fail
from support.system import free_port

from processes import ROOT
from processes.heard import HeardProcess
from processes.loopback import ask

VERSION = "3.13.2"
CACHE = ROOT / ".servers" / f"wiremock-{VERSION}"


def jar() -> Path:
    """The standalone jar, fetched once; skips (in CI: fails) where java or npm is missing."""
    if shutil.which("java") is None or shutil.which("npm") is None:
        skip_or_fail(f"wiremock {VERSION} needs java and npm: the PayPal adapter is not tested")
    found = CACHE / "package" / "build" / f"wiremock-standalone-{VERSION}.jar"
    with alone_in(CACHE):
        if not found.exists():
            command = ["npm", "pack", "--silent", f"wiremock@{VERSION}"]
            subprocess.run(command, cwd=CACHE, check=True, capture_output=True, timeout=INSTALL_WITHIN_S)
            subprocess.run(["tar", "xzf", f"wiremock-{VERSION}.tgz"], cwd=CACHE, check=True)
    return found


class WireMock:
    """One server; `stub` adds an answer, `reset` forgets them all. Use it in a `with`."""

    def __enter__(self) -> WireMock:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [
            "java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-jar", str(jar()), "--port", str(port),
            "--bind-address", "127.0.0.1",
        ]  # fmt: skip
        self._process = HeardProcess("wiremock", command, Path(os.devnull), cwd=CACHE)
        self._process.launch()
        assert self._process.wait_line("^port:", STARTS_WITHIN_S), self._process.tail()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()

    def stub(self, method: str, path: str, body: object, status: int = 200, **response: Any) -> None:
        """Answer this path so from now on; the newest stub counts."""
        self._post("/__admin/mappings", {
            "request": {"method": method, "urlPath": path},
            "response": {"status": status, "jsonBody": body, **response},
        })  # fmt: skip

    def stub_body(self, method: str, path: str, json_path: str, **response: Any) -> None:
        """Answer so, if the body has something at this JSONPath; the newest stub counts."""
        self._post("/__admin/mappings", {
            "request": {
                "method": method, "urlPath": path, "bodyPatterns": [{"matchesJsonPath": json_path}],
            },
            "response": response,
        })  # fmt: skip

    def reset(self) -> None:
        """Forget stubs and requests."""
        self._post("/__admin/reset", {})

    def requests(self, path: str) -> list[dict[str, Any]]:
        """What was sent to this path, oldest first: `headers`, `body`."""
        found = self._post("/__admin/requests/find", {"urlPath": path})
        requests: list[dict[str, Any]] = found["requests"]
        return requests

    def _post(self, path: str, body: object) -> dict[str, Any]:
        answer: dict[str, Any] = ask(self.url + path, body) or {}
        return answer
