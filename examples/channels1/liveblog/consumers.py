"""A socket of the live blog: it only reads.  An entry reaches it from wherever it is stored."""

import json

from channels import Group
from django.db.models.signals import post_save
from django.dispatch import receiver

from liveblog.models import BlogUpdate


@receiver(post_save, sender=BlogUpdate)
def send_update(sender, instance, **kwargs):
    """Send a stored entry to all readers."""
    Group("liveblog").send({"text": json.dumps({"id": instance.id, "content": instance.content})})


def ws_connect(message):
    """Add a reader to the group."""
    Group("liveblog").add(message.reply_channel)
    message.reply_channel.send({"accept": True})


def ws_disconnect(message):
    """Take a reader that has gone out of the group."""
    Group("liveblog").discard(message.reply_channel)
