"""One process's end of a channel layer: all that has meaning, on top of any backend."""
