"""The names of Daphne, handed on to the interface server of Channels."""

from channels import __version__ as __version__
