"""One module for each package: what it needs, a small site of it, and a client that uses it."""
