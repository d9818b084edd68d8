"""Packages that build on Channels, driven over real sockets: see README.md."""
