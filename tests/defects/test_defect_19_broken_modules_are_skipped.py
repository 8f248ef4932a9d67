"""Defect 19: a discovered module that cannot be imported is logged; the worker runs without its agent."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from defects.kit import READY, Bench, Worker, both_layers

from processes import ROOT

SHOP = {
    "__init__.py": "",
    "charging.py": "import a_module_that_is_not_installed",
    "__main__.py": """
import sys
from defects import programs
layer, name, broker, folder = sys.argv[1:5]
del sys.argv[1:5]
chosen = {"datadir": folder, "autodiscover": ["shop"], "origin": "shop"}
app, _ = getattr(programs, layer)(name, broker, chosen)

@app.agent(app.topic(f"{name}-bookings"))
async def book(stream):
    async for _ in stream.events():
        pass

app.main()
""",
}


class ShopWorker(Worker):
    """A worker of the package `shop`, whose module `charging` cannot be imported."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        super().__init__(bench, "shop-data", {})
        (folder / "shop").mkdir()
        for name, text in SHOP.items():
            (folder / "shop" / name).write_text(text)
        path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", folder)))
        self.environment = {**self.environment, "PYTHONPATH": path}
        self.command = [
            sys.executable, "-P", "-m", "shop", bench.layer, bench.name, bench.broker, str(self.datadir),
            "worker", "--without-web", "--loglevel=info",
        ]  # fmt: skip


@both_layers("Faust logs what a discovered module raises, then starts")
def test_defect_19_a_module_that_cannot_be_imported_stops_the_start(
    broker: str, tmp_path: Path, unique_name: str, layer: str
) -> None:
    """A worker never runs without the agents of a broken module: the layer refuses to discover any."""
    with Bench(broker, tmp_path, unique_name, layer, "forward") as bench:
        worker = ShopWorker(bench, tmp_path)
        bench.workers.append(worker)
        worker.start()
        assert "autodiscover skips modules" in worker.wait_for_line(f"{READY}|autodiscover skips modules")
