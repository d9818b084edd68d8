"""Loggers that write to the standard error."""

from __future__ import annotations

import logging

#: Where they write.
handler = logging.StreamHandler()


def setup_logger(name: str, verbosity: int = 1) -> logging.Logger:
    """Let a logger write to the standard error.

    Args:
        verbosity: As a command's `-v`: above 1 messages of the level DEBUG are written too.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG if verbosity > 1 else logging.INFO)
    logger.propagate = False
    if handler not in logger.handlers:
        logger.addHandler(handler)
    return logger
