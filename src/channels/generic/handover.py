"""Consumers whose connection goes on in another worker: decoupled mode.

    class RoomConsumer(AsyncWebsocketConsumer):
        state_fields = ("room", "user_id")

        async def connect(self): ...
        async def resumed(self): ...    # in place of connect(), after a hand-over

When its worker stops, such a consumer is not told `disconnect`: its state and its groups go back to
the edge, and from there to a new instance in another worker.  With `on_crash` they also survive the
worker's death, as they were when an event was acknowledged last.  A consumer without state is
drained instead, and under a server that runs it in its own process nothing of this takes place.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final

from channels.exceptions import UnknownMessageType
from channels.generic.membership import Membership
from channels.kit.doors import Placement, find_placement
from channels.kit.types import Message

#: RFC 6455 section 7.4.2's registry: "Service Restart".
SERVICE_RESTART: Final = 1012
ON_CRASH: Final = ("close", "redeliver", "drop")


class HandOver(Membership):
    """What a consumer needs so that another worker can go on with its connection."""

    #: Names of the attributes that a new instance needs; their values are those of a message.
    state_fields: Iterable[str] = ()
    #: What happens when the worker dies: the connection is closed with 1012 ("close"), or goes on
    #: elsewhere, where the events that were not acknowledged come again ("redeliver": an event may
    #: be handled twice) or do not ("drop": an event may be lost).
    on_crash: str = "close"

    _keeps_state: ClassVar[bool] = False

    @classmethod
    def _prepare(cls) -> None:
        super()._prepare()
        # By its name, because this class itself has none yet when it is prepared.
        has_own = cls.get_state.__qualname__ != "HandOver.get_state"
        cls._keeps_state = bool(cls.state_fields) or has_own
        if cls.on_crash not in ON_CRASH:
            raise ValueError(
                f"{cls.__qualname__}.on_crash is {cls.on_crash!r}: expected one of "
                f"{', '.join(ON_CRASH)}."
            )

    def get_state(self) -> dict[str, Any]:
        """What a new instance needs: all of JSON, and bytes.  Override it in place of the fields.

        Called on the event loop, after each handler if `on_crash` is not "close".
        """
        names = tuple(self.state_fields)
        return {name: getattr(self, name) for name in names if hasattr(self, name)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take what `get_state` has given in another worker, of another release perhaps."""
        for name in self.state_fields:
            if name in state:
                setattr(self, name, state[name])

    @property
    def socket_channel(self) -> str:
        """A channel for groups that send to the socket itself, whatever becomes of the consumer.

        What is sent to it is `websocket.send` or `websocket.close`; no consumer sees that, and it
        arrives while no worker lives.  Where the server runs the consumer it is `channel_name`.
        """
        placement = find_placement(self.scope)
        return placement.socket if placement is not None and placement.socket else self.channel_name

    def _give_state(self) -> None:
        """Let the worker have the state, if there is one, and no middleware that reads events."""
        placement = find_placement(self.scope)
        if placement is not None and self._line.is_direct:
            placement.keep(self._carried, self.on_crash)

    def _carried(self) -> dict[str, Any]:
        layer = self.channel_layer
        if hasattr(layer, "groups_of"):
            groups = set(layer.groups_of(self.channel_name))
        else:
            groups = {*self._member_of, *(self.groups or ())}
        return {"state": self.get_state(), "groups": sorted(groups)}

    def _placement_of(self, message: Message) -> Placement:
        """The placement that a message comes from.

        Raises:
            UnknownMessageType: If it comes from elsewhere, through a group for instance.
        """
        placement = find_placement(self.scope)
        is_its_own: bool = message.get("placement") is placement
        if placement is not None and is_its_own:
            return placement
        raise UnknownMessageType(f"'{message['type']}' is said by a worker alone.")

    def _groups_to_resume(self, message: Message) -> list[str]:
        """Take the state; returns the groups to be joined again."""
        carried: Mapping[str, Any] = message["state"] or {}
        self._give_state()
        self.set_state(carried.get("state") or {})
        return list(dict.fromkeys([*self._groups_to_join(), *(carried.get("groups") or ())]))
