"""Messages under the module name of Channels 1."""

from channels.legacy.message import (
    Message,
    PendingMessageStore,
    pending_message_store,
)

__all__ = ["Message", "PendingMessageStore", "pending_message_store"]
