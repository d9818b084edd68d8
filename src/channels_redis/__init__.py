"""The names of channels_redis, handed on to the layers of Channels."""

from channels import __version__ as __version__
