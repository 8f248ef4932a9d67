"""What a user of the layer may choose."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any

from .answers import CONFIRM_S
from .environment import REAL, Environment

SCHEME = "exactly-once"


def plain_key(key: bytes) -> str:
    """A message key as text."""
    return key.decode("utf-8", "backslashreplace")


def none_held_back() -> int:
    """What a log says that writes every line."""
    return 0


def no_probe(point: str) -> None:
    """Do nothing at a named point of the commit (tests put a crash here)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The layer's settings; all times carry their unit in the name.

    Attributes:
        client_config: librdkafka settings that both the producers and the readers need
            (`bootstrap.servers`, TLS, SASL).
        commit_interval_ms: most time that finished work waits for its commit under load.
        commit_distance_ms: least time between the beginnings of two commits of a task: each commit costs the
            brokers the same, whatever is in it. 0: none; what has rested for so long commits at once.
        max_running: handlers running at once per worker.
        max_running_of: by source topic how many of them may be its own; a topic that is not here: all.
        max_waiting_units: units of a task, running or finished but uncommitted, before it is not fetched.
        max_units_per_commit: units in one transaction (point 3 of the contract).
        max_waiting_bytes: bytes of events, sends and writes held in memory per worker.
        grace_s: how long handlers of a revoked task may still finish (point 7).
        last_commit_s: how long the last commit of a revoked task may take (point 7).
        handler_tries: how often a raising handler is run before `on_handler_failure` decides (point 9e).
        transaction_timeout_ms: after this the broker aborts a transaction nobody ends.
        request_timeout_s: bound of one blocking call to the broker.
        confirm_s: how long Kafka's answer must stay so before it stops a task for an operator, or has a
            database rebuilt.
        on_handler_failure: called with (event, exception) inside the emptied unit after the last try;
            returning acknowledges the event with what it sent; raising stops the worker.
        session_advice: what an operator can do if the broker refuses the session time-out.
        broker_advice: what an operator can do if no broker answers, for the line that says so.
        replication_advice: the same for too few brokers for a new topic's replicas.
        report_every_s: how often a task may write its line of state into the log (point 13).
        head_of_line_alarm_s: how long one event may hold up the commits behind it before that is an alarm;
            well above the longest time a handler takes when all is well.
        key_text: how the log shows the key of that event; keys may be personal data.
        on_committed: called with (event, facts) for each `Unit.report`, after its commit is known to have
            happened, in the event loop: for the log. A commit whose answer was lost is not reported.
        on_commit: the same once for each commit: called with a list of (event, facts). Instead of
            `on_committed`, where there are many.
        event_word: what the log calls an event where an operator reads that none is handled.
        held_back_lines: how many log lines were counted instead of written, since the process began.
        release: of the app, as the other members of the group see it; empty: they do not see it.
        group_format: raised by a release that cannot run beside the ones before: Kafka lets only members of
            one format into a group, whatever release they are of.
        group_advice: what an operator can do while members of another format are in the group.
        owns_process: the worker is alone in its process: the garbage collector looks seldom, glibc keeps two
            heaps for all threads, the exit waits only 2 s for threads that wait for Kafka. False: all that is
            left as it is.
        environment: Kafka's clients, clock, threads, disk; a simulation gives its own.
        probe: called with the name of each point of an opening or a commit, in the thread that does it.
        tell_committed, gap_alarm_s: what `on_committed` and `head_of_line_alarm_s` were called before 0.1.
    """

    client_config: Mapping[str, Any]
    commit_interval_ms: int = 100
    commit_distance_ms: int = 0
    max_running: int = 1000
    max_running_of: Mapping[str, int] = field(default_factory=dict)
    max_waiting_units: int = 5000
    max_units_per_commit: int = 5000
    max_waiting_bytes: int = 256 * 1024 * 1024
    grace_s: float = 1.5
    last_commit_s: float = 1.0
    handler_tries: int = 3
    transaction_timeout_ms: int = 15_000
    request_timeout_s: float = 10.0
    confirm_s: float = CONFIRM_S
    max_record_bytes: int = 4 * 1024 * 1024
    on_handler_failure: Callable[[Any, Exception], Awaitable[None]] | None = None
    session_advice: str = "choose another session_timeout_s"
    broker_advice: str = "start one, or set the app's broker address"
    replication_advice: str = "start the missing brokers, or ask for fewer replicas"
    report_every_s: float = 10.0
    head_of_line_alarm_s: float = 60.0
    key_text: Callable[[bytes], str] = field(default=plain_key)
    on_committed: Callable[[Any, tuple[Any, ...]], None] | None = None
    on_commit: Callable[[list[tuple[Any, tuple[Any, ...]]]], None] | None = None
    event_word: str = "event"
    held_back_lines: Callable[[], int] = field(default=none_held_back)
    release: str = ""
    group_format: int = 1
    group_advice: str = "stop all workers of the other release first"
    owns_process: bool = True
    environment: Environment = REAL
    probe: Callable[[str], None] = field(default=no_probe)
    tell_committed: InitVar[Callable[[Any, tuple[Any, ...]], None] | None] = None
    gap_alarm_s: InitVar[float | None] = None

    def __post_init__(
        self, tell_committed: Callable[[Any, tuple[Any, ...]], None] | None, gap_alarm_s: float | None
    ) -> None:
        """Take the earlier names, too."""
        if tell_committed is not None:
            object.__setattr__(self, "on_committed", tell_committed)
        if gap_alarm_s is not None:
            object.__setattr__(self, "head_of_line_alarm_s", gap_alarm_s)
