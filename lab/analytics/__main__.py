"""`python -m lab.analytics follow|report|compare|export`: the consumer to copy, at the command line."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from confluent_kafka import KafkaException

from lab.analytics.books import Overtaken, RevenueBooks
from lab.analytics.export import export
from lab.analytics.following import COMMITTED, UNCOMMITTED, Follower
from lab.analytics.reporting import compare, report
from streamsocial_billing.kafka.committed import KafkaProblem, said
from streamsocial_billing.settings import Settings, SettingsError

DB = Path("data/analytics/revenue.sqlite")
BESIDE = Path("data/analytics/uncommitted.sqlite")


def _follow(options: argparse.Namespace, settings: Settings) -> None:
    """Until SIGTERM or Ctrl-C; neither is needed, SIGKILL does no harm."""
    stopped: list[int] = []
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, lambda number, _: stopped.append(number))
    isolation = UNCOMMITTED if options.read_uncommitted else COMMITTED
    books = RevenueBooks(options.db or (BESIDE if options.read_uncommitted else DB))
    follower = Follower(settings.client_config(), books, prefix=settings.topic_prefix, isolation=isolation)
    try:
        follower.run(lambda: bool(stopped), to_end=options.to_end)
    finally:
        follower.close()
        books.close()


def _report(options: argparse.Namespace, _: Settings) -> None:
    for line in report(RevenueBooks(options.db or DB)):
        print(line)


def _compare(options: argparse.Namespace, _: Settings) -> None:
    for line in compare(RevenueBooks(options.db or DB), RevenueBooks(options.beside)):
        print(line)


def _export(options: argparse.Namespace, settings: Settings) -> None:
    for name, count in export(settings, options.folder).items():
        print(f"{options.folder / name}.jsonl: {count} records")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.analytics", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    follow = commands.add_parser("follow", help="count revenue, from where this database ends")
    follow.add_argument("--to-end", action="store_true", help="stop at the end of the topics")
    follow.add_argument("--read-uncommitted", action="store_true", help="count what was aborted, too")
    follow.set_defaults(call=_follow)
    reported = commands.add_parser("report", help="revenue by minute, product, currency")
    reported.set_defaults(call=_report)
    compared = commands.add_parser("compare", help="what the two isolation levels report")
    compared.add_argument("--beside", type=Path, default=BESIDE, help="the database of read_uncommitted")
    compared.set_defaults(call=_compare)
    for one in (follow, reported, compared):
        one.add_argument("--db", type=Path, help=f"the database; {DB} by default")
    exported = commands.add_parser("export", help="write both topics as JSON lines")
    exported.add_argument("folder", type=Path)
    exported.set_defaults(call=_export)
    return parser


def main() -> int:
    """Exit code 0, or 1 with one line on stderr."""
    options = _parser().parse_args()
    try:
        options.call(options, Settings.from_environment(os.environ))
    except (KafkaProblem, SettingsError, Overtaken, KafkaException) as problem:
        print(said(problem), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
