"""The table of delayed messages, as Channels 1 made it."""
