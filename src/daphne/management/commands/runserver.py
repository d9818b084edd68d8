"""`runserver` for projects that list "daphne"."""

from __future__ import annotations

from channels import __version__
from channels.management.commands.runserver import Command as ChannelsCommand


class Command(ChannelsCommand):
    """The same command under the name that such projects know."""

    server_label = f"Daphne version {__version__}"
