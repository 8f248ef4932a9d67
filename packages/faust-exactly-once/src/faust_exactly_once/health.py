"""Whether Kafka answers, as a whole and broker by broker; what is said of it in the log."""

from .broker_absences import Brokers
from .connectivity import MOVES_S, Connectivity
from .operator_log import KafkaLines, log_broker_changes
from .state import State

SILENT_S = 3.0  # a fetch is answered many times in this time, also by a busy broker


class Health:
    """Looks at Kafka about once a second."""

    def __init__(self, state: State) -> None:
        options = state.options
        self._clock = options.environment.clock
        self.connectivity = Connectivity(self._kafka_answers, self._clock.time)
        self.brokers = Brokers(self._clock.time)
        self.lines = KafkaLines(
            self.connectivity, options.held_back_lines, self._clock.time, options.event_word
        )
        self._state = state
        self._contact_lost_at: float | None = None

    def look(self) -> None:
        """Look whether Kafka and each of its brokers answer, say what has changed; about once a second."""
        changes = self.brokers.look({} if self._state.member is None else self._state.member.brokers())
        lost_at = self._clock.monotonic() if self._contact_lost_at is None else self._contact_lost_at
        self._contact_lost_at = None if self._state.has_contact() else lost_at
        self.lines.say(self.connectivity.look())
        if self.brokers.several():  # of a single one the lines about Kafka say it all
            log_broker_changes(changes, self._state.assigned_tasks.keys())

    def coordinator_moves(self) -> bool:
        """True while other brokers answer, and the group's coordinator is not known for a short time only."""
        lost_s = 0.0 if self._contact_lost_at is None else self._clock.monotonic() - self._contact_lost_at
        return self.brokers.several() and self.brokers.any_answers() and lost_s < MOVES_S

    def _kafka_answers(self) -> bool:
        """Also false while every broker hangs, which the group notices only after its time-outs."""
        silent_s = 0.0 if self._state.member is None else self._state.member.silent_s()
        answers = self.brokers.any_answers() and silent_s < SILENT_S
        return answers and (self._state.has_contact() or self.coordinator_moves())
