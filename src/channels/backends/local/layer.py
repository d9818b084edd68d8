"""`LocalChannelLayer`: groups and queues for the processes of one machine and user, no broker.

Topology: the first process that needs the layer becomes the hub, on a thread of its own; the others
connect to it by a Unix socket in a directory that only their user may enter.  When the hub's
process ends, another takes its place within milliseconds.

Guarantee: at most once, unless `delivery` says at least once.  One order for all messages of a
group, and first in, first out for a queue.  Nothing is lost or doubled when connections break, or
when the hub's process ends in order (`close()`, or the interpreter's exit): what is unread, delayed
or on lease goes to the next hub.  When it is killed, what it held unread is lost: messages in
queues that nobody was waiting for, and what could not be written yet to a process that did not
read.  A process that misses something is told (`add_gap_listener`).
"""

from __future__ import annotations

import os
from typing import Any

from channels.backends.local.options import HubOptions
from channels.backends.local.place import find_place
from channels.backends.local.transport import HubTransport
from channels.exceptions import InvalidChannelLayerError
from channels.layers.options import split_options
from channels.layers.process.layer import NodeChannelLayer


class LocalChannelLayer(NodeChannelLayer):
    """See the module.

    Args:
        prefix: Layers with the same prefix and directory are one.
        directory: Where the processes meet, in a directory of their own below it; None: below the
            system's for temporary files, and only processes with the same Django settings meet.
            There another user can take the name beforehand; then no message can be sent.
        config: The options of `HubOptions` and `LayerOptions`.

    Raises:
        InvalidChannelLayerError: For a key that is unknown, or a directory that cannot be.
    """

    def __init__(
        self,
        prefix: str = "channels",
        directory: str | os.PathLike[str] | None = None,
        **config: Any,
    ) -> None:
        if not isinstance(prefix, str):
            raise InvalidChannelLayerError(f"prefix={prefix!r}: expected a string.")
        hub_options, options = split_options(HubOptions, config, layer=type(self))
        transport = HubTransport(
            find_place(prefix, directory), hub_options, options.max_message_bytes
        )
        super().__init__(transport, options)

    @property
    def is_hub(self) -> bool:
        """True if this process is the hub."""
        transport = self.node.transport
        assert isinstance(transport, HubTransport), "made above"
        return transport.hub is not None and transport.hub.is_alive
