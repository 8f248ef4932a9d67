"""Agents that tell their stream how they ended, so that no event is taken for handled."""

import logging
from collections.abc import Awaitable
from typing import Any, NoReturn

from faust.agents import Agent as FaustAgent

from .agent_handler import AgentLeft
from .errors import SetupRefused
from .stream import Stream

logger = logging.getLogger(__name__)


class Agent(FaustAgent):
    """A Faust agent inside the exactly-once layer."""

    async def _execute_actor(self, coro: Awaitable[None], aref: Any) -> None:
        await super()._execute_actor(self._watched(coro, aref), aref)

    async def _watched(self, coro: Awaitable[None], aref: Any) -> None:
        """Run the agent; however it ends, the event it was working on comes again."""
        stream: Stream = aref.stream
        try:
            await coro
            if not (aref.should_stop or self.should_stop or self.app.should_stop):
                raise AgentLeft(f"agent {self.name} returned: it must iterate its stream for ever")
        except SetupRefused as exc:
            await self.app.crash(exc)
            raise
        except BaseException as exc:
            stream.agent_failed(exc)
            raise

    async def _reply(self, key: Any, value: Any, reply_to: str, correlation_id: str) -> None:
        """Reply to nobody: whoever put the header there is not part of this app's units."""
        logger.warning("agent %s: a request for a reply to %s is ignored", self.name, reply_to)

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: a reply comes after the unit has ended.

        Raises:
            SetupRefused: always.
        """
        raise SetupRefused("ask, map, join of agents wait for replies, which no unit can: use cast or send")

    ask = ask_nowait = map = kvmap = join = kvjoin = _refuse
