"""Groups that every connection of a consumer class is a member of."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from channels.consumer import AsyncConsumer
from channels.exceptions import InvalidChannelLayerError

logger = logging.getLogger("django.channels")


class Membership(AsyncConsumer):
    """Notes which groups a consumer has joined, so that no way out forgets one."""

    #: Groups that every connection is a member of, as long as it is open.  A consumer that joins
    #: more of them itself may add their names: all that stand here at the end are left.
    groups: Iterable[str] | None = None

    _member_of: Iterable[str] = ()
    _has_left_groups = False

    def _groups_to_join(self) -> list[str]:
        """The class's groups, noted before they are joined, so that a cancelled join is undone.

        Raises:
            InvalidChannelLayerError: If there are some and the layer knows no groups.
        """
        groups = list(self.groups or ())
        if groups and not hasattr(self.channel_layer, "group_add"):
            raise InvalidChannelLayerError(
                "BACKEND is unconfigured or doesn't support groups: CHANNEL_LAYERS has no layer "
                f"{self.channel_layer_alias!r} that can hold {type(self).__qualname__}.groups."
            )
        self._member_of = groups
        return groups

    def _groups_to_leave(self) -> list[str]:
        if self._has_left_groups or not hasattr(self.channel_layer, "group_discard"):
            return []
        self._has_left_groups = True
        return list(dict.fromkeys([*self._member_of, *(self.groups or ())]))

    async def _leave(self) -> None:
        groups = self._groups_to_leave()
        if hasattr(self.channel_layer, "detach"):
            # Our own layers forgot the memberships together with the channel.
            groups = []
        try:
            async with asyncio.timeout(self.close_timeout):
                for group in groups:
                    await self.channel_layer.group_discard(group, self.channel_name)
        except Exception:
            logger.exception("%s could not leave its groups.", type(self).__qualname__)
        await super()._leave()
