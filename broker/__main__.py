"""Run the local broker, or three of them, in the foreground: `python -m broker run`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from broker import BrokerError, LocalBroker
from broker.choice import brokers_wanted, folder_name
from broker.cluster import LocalCluster
from broker.signals import stop_with

DATA = Path(__file__).resolve().parent.parent / "data"
LOOK_EVERY_S = 0.2


class _Stop(BaseException):
    """Raised when a signal asks for the end."""


def main() -> int:
    """Start, print the address, stay until Ctrl-C or SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m broker", description=__doc__)
    run = parser.add_subparsers(dest="command", required=True).add_parser("run", help="run until Ctrl-C")
    run.add_argument("--data", type=Path, help="data folder (default: data/kafka, of three data/kafka-3)")
    run.add_argument("--port", type=int, help="client port; 0: any free one (default: 9092, else a free one)")
    arguments = parser.parse_args()
    try:
        brokers = brokers_wanted(os.environ)
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 2
    data = arguments.data or DATA / folder_name("kafka", brokers)
    stop_with(_Stop)
    if brokers == 3:
        return _serve_cluster(LocalCluster(data, brokers, arguments.port))
    return _serve(LocalBroker(data, arguments.port, lasting=True))


def _serve(broker: LocalBroker) -> int:
    try:
        started = time.monotonic()
        broker.start()
        print(f"BILLING_BROKER={broker.url}", flush=True)
        print(f"up in {time.monotonic() - started:.1f} s; Ctrl-C stops it", file=sys.stderr, flush=True)
        while broker.running:
            time.sleep(LOOK_EVERY_S)
        print(f"the broker ended by itself (log: {broker.log_file})", file=sys.stderr)
        return 1
    except BrokerError as error:
        print(error, file=sys.stderr)
        return 1
    except _Stop:
        return 0
    finally:
        broker.stop()


def _serve_cluster(cluster: LocalCluster) -> int:
    try:
        started = time.monotonic()
        cluster.start()
        # quoted: to a shell, `;` ends a command
        print(f"BILLING_BROKER={shlex.quote(cluster.url)}", flush=True)
        _tell(f"controller (pid {cluster.controller.pid})")
        for node in cluster.brokers:
            _tell(f"broker {node.number} {node.bootstrap} (pid {node.pid})")
        memory = f"{cluster.memory_bytes() / 2**20:.0f} MiB of memory"
        _tell(f"up in {time.monotonic() - started:.1f} s, {memory}; Ctrl-C stops all")
        _watch(cluster)
        _tell(f"all brokers, or the controller, ended by themselves (logs: {cluster.data_dir}/*/broker.log)")
        return 1
    except BrokerError as error:
        _tell(str(error))
        return 1
    except _Stop:
        return 0
    finally:
        cluster.stop()


def _watch(cluster: LocalCluster) -> None:
    """Name each broker that ends; return when none is left, or when the controller has ended."""
    living = list(cluster.brokers)
    while living and cluster.controller.running:
        for node in [node for node in living if not node.running]:
            living.remove(node)
            _tell(f"broker {node.number} ended by itself (log: {node.log_file})")
        time.sleep(LOOK_EVERY_S)


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
