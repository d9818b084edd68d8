"""The API of Channels 1: sync consumers of messages, in workers behind an interface server."""
