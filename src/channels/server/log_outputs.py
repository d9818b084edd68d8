"""Where the commands write their log and their access log, when the site has not said it."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from channels.exceptions import InvalidOption
from channels.kit.limits import MIB
from channels.server.access_log import AccessLog
from channels.server.log_writer import log_file, log_stream
from channels.server.request_ids import RequestIdFilter

LOG_FORMAT = "%(asctime)-15s %(levelname)-8s %(message)s"
#: --verbosity -> level; 3 also turns asyncio's debug mode on.
LOG_LEVELS = (logging.WARNING, logging.INFO, logging.DEBUG, logging.DEBUG)


def set_up_logging(
    verbosity: int, formatter: logging.Formatter | None = None, buffer_bytes: int = MIB
) -> None:
    """Send log records to the standard error, at the level that `verbosity` (0 to 3) means.

    A site that has a handler on the root logger keeps it, and gets no other.  Without one Django's
    own settings show nothing unless DEBUG is on, and then what they show is not shown twice.  A
    standard error that takes nothing is not waited for.
    """
    if not logging.root.handlers:
        handler = logging.StreamHandler(log_stream(sys.stderr, "stderr", buffer_bytes))
        handler.addFilter(_is_unseen)
        handler.addFilter(RequestIdFilter())
        handler.setFormatter(formatter or logging.Formatter(LOG_FORMAT))
        logging.basicConfig(level=LOG_LEVELS[verbosity], handlers=[handler])
    if verbosity > 2:
        os.environ["PYTHONASYNCIODEBUG"] = "1"


def _is_unseen(record: logging.LogRecord) -> bool:
    """False if a handler further down has written the record to a stream."""
    logger: logging.Logger | None = logging.getLogger(record.name)
    while logger is not None and logger is not logging.root:
        for handler in logger.handlers:
            if (
                isinstance(handler, logging.StreamHandler)
                and record.levelno >= handler.level
                and handler.filter(record)
            ):
                return False
        if not logger.propagate:
            break
        logger = logger.parent
    return True


def open_access_log(
    place: str | None, buffer_bytes: int = MIB, *, is_json: bool = False
) -> AccessLog | None:
    """A log on the standard output ("-") or at the end of a file; None for none.

    The file is opened again when it was moved away, as logrotate does it.  An output that takes
    nothing is not waited for: lines are dropped and counted.

    Raises:
        InvalidOption: If the file cannot be opened.
    """
    if place is None:
        return None
    handler = logging.StreamHandler(access_stream(place, buffer_bytes))
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("channels.access")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return AccessLog(logger, is_json=is_json)


def access_stream(place: str, buffer_bytes: int = MIB) -> TextIO:
    """What an access log writes to.

    Raises:
        InvalidOption: If the file cannot be opened.
    """
    if place == "-":
        return log_stream(sys.stdout, "stdout", buffer_bytes)
    try:
        return log_file(place, buffer_bytes)
    except OSError as error:
        raise InvalidOption(f"access_log={place!r} cannot be written: {error.strerror}.") from None
