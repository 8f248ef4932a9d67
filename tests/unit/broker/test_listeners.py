"""Each pair of caller and node has an address of its own, and a node advertises what the caller is told."""

from __future__ import annotations

from broker.listeners import CONTROLLER_ID, Listeners, caller_of

TOLD = 50_000


def told(caller: str, node: int, port: int) -> int:
    """A proxy's port in front of the node's: another number, different for each."""
    return port + TOLD


def ports(listeners: str) -> dict[str, int]:
    """`NAME://host:port,...`, without the plain listener: name -> port."""
    pairs = [one.split("://") for one in listeners.split(",")]
    return {name: int(place.rpartition(":")[2]) for name, place in pairs if "{" not in place}


def test_a_broker_tells_each_caller_the_port_of_its_proxy() -> None:
    """A listener for each client and each peer; what is advertised is what `through` returned."""
    settings = Listeners(3, ("w1",), told).settings(2)
    bound, advertised = ports(settings["listeners"]), ports(settings["advertised.listeners"])
    assert {"FROM_W1", "FROM_BROKER_1", "FROM_BROKER_2", "FROM_BROKER_3"} == set(bound) == set(advertised)
    own = "FROM_BROKER_2"
    wanted = {name: port + TOLD for name, port in bound.items()}
    assert wanted | {own: bound[own]} == advertised
    assert own == settings["inter.broker.listener.name"]


def test_a_broker_reaches_the_controller_by_a_listener_of_its_own() -> None:
    """The controller has one listener per broker; each broker names its own and begins at its proxy."""
    listeners = Listeners(3, (), told)
    controller = listeners.settings(CONTROLLER_ID)
    advertised = ports(controller["advertised.listeners"])
    assert {f"CONTROLLER_FOR_BROKER_{number}" for number in (1, 2, 3)} == set(advertised)
    for number in (1, 2, 3):
        broker = listeners.settings(number)
        name = broker["controller.listener.names"]
        assert name in controller["controller.listener.names"].split(",")
        assert f"127.0.0.1:{advertised[name]}" == broker["controller.quorum.bootstrap.servers"]


def test_every_listener_is_asked_for_once() -> None:
    """`through` sees each pair of caller and other node; no port is given out twice."""
    seen: list[tuple[str, int, int]] = []

    def note(caller: str, node: int, port: int) -> int:
        seen.append((caller, node, port))
        return port

    Listeners(3, ("w1", "w2"), note)
    wanted = {(caller, node) for caller in ("w1", "w2") for node in (1, 2, 3)}
    wanted |= {(caller_of(a), b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}
    wanted |= {(caller_of(number), CONTROLLER_ID) for number in (1, 2, 3)}
    assert wanted == {(caller, node) for caller, node, _ in seen}
    assert len(wanted) == len(seen) == len({port for _, _, port in seen})
