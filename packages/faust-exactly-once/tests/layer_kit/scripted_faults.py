"""What may go wrong at a call of a scripted Kafka's world: each a step of its script."""

from layer_kit.scripted_librdkafka import FENCED
from layer_kit.scripted_worker import Crash, Step, World


def raises(code: int, **flags: bool) -> Step:
    """The call ends with librdkafka's error."""
    return lambda world: world.client.fail(code, **flags)


def meets(code: int, **flags: bool) -> Step:
    """The producer meets an error in the background."""
    return lambda world: world.client.becomes(code, **flags)


def fenced(world: World) -> None:
    """Another producer opens the transactional id."""
    world.kafka.fence()


def moves_on(world: World) -> None:
    """The group rebalances."""
    world.kafka.next_generation()


def crash(world: World) -> None:
    """The process is gone."""
    raise Crash


def sent(world: World) -> None:
    """What is queued so far has reached the broker."""
    world.client.deliver()


def sent_then(step: Step) -> Step:
    """What is queued so far has reached the broker when this happens."""

    def both(world: World) -> None:
        sent(world)
        step(world)

    return both


def passes(world: World) -> None:
    """Nothing happens at this call."""


def full(world: World) -> None:
    """librdkafka's queue takes no more."""
    raise BufferError("Local: Queue full")


def unconfirmed(world: World) -> None:
    """No delivery is reported in time."""
    world.client.stuck = True


def fatal_unsaid(world: World) -> None:
    """A fatal error of which confluent-kafka says nothing."""
    world.client.becomes(FENCED, fatal=True)
    raise SystemError("returned NULL without setting an exception")


def no_answer(world: World) -> None:
    """The group's coordinator is away: librdkafka forgets its time-out."""
    assert world.kafka.answer is not None
    world.kafka.answer.never_comes()
    world.coordinator_is_back.wait()


def arrives(world: World) -> None:
    """The commit that got no answer happens after all."""
    world.kafka.commit()


def disk_full(world: World) -> None:
    """RocksDB refuses."""
    raise RuntimeError("IO error: No space left on device")


def record_refused(world: World) -> None:
    """From now on the broker refuses the second event's result."""
    world.kafka.refused.add(b"events-1/1")


def record_too_large(world: World) -> None:
    """From now on librdkafka refuses the second event's result."""
    world.kafka.too_large.add(b"events-1/1")


def revoked(world: World) -> None:
    """The group takes the task while RocksDB writes: revoking is bounded, its files stay open."""
    world.kafka.next_generation()
    revoking = world.now.loop.create_task(world.now.layer.supervisor.revoke())
    world.now.loop.settle(3)
    assert (True, False) == (revoking.done(), world.now.assigned.done.is_set())
