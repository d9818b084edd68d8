"""What a server process writes into its logs, and in which form."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

from channels.kit.limits import KIB, MIB
from channels.kit.options import check_options, option
from channels.server.access_log import AccessLog
from channels.server.json_log import JsonFormatter
from channels.server.log_outputs import LOG_FORMAT, open_access_log, set_up_logging

#: LOG_FORMAT in a worker, once its number is filled in.
WORKER_LOG_FORMAT: Final = "%%(asctime)-15s %%(levelname)-8s [%d] %%(message)s"
#: The value of `log_format` that is none of the logging module's.
JSON: Final = "json"


@dataclass(frozen=True, slots=True)
class Reporting:
    """What `channels serve` tells of its work."""

    verbosity: int = option(
        1,
        short="-v",
        unit="level",
        minimum=0,
        maximum=3,
        help="0 warnings, 1 what happens, 2 details, 3 asyncio's debug mode too",
    )
    access_log: str | None = option(
        "-",
        none="no access log",
        help="file that gets a line for each request; - is the standard output",
    )
    access_log_format: str | None = option(
        None,
        choices=("common", JSON),
        none="json where log_format is, else common",
        help="form of an access log line",
    )
    log_format: str = option(
        LOG_FORMAT,
        help="form of a log line, as the logging module has it; or json: an object in each line, "
        "with the request's id",
    )
    log_buffer_bytes: int = option(
        MIB,
        unit="bytes",
        minimum=4 * KIB,
        help="log lines that wait while an output takes none, for each output; then lines are "
        "dropped and counted",
    )

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def is_json(self) -> bool:
        """True if the log is JSON."""
        return self.log_format == JSON

    def set_up(self, worker: int | None = None) -> None:
        """Send log records to the standard error.

        Args:
            worker: The worker's number in this process's lines; None for a process that is none.
        """
        text = self.log_format
        if worker is not None and text == LOG_FORMAT:
            text = WORKER_LOG_FORMAT % worker
        formatter = JsonFormatter(worker) if self.is_json else logging.Formatter(text)
        set_up_logging(self.verbosity, formatter, self.log_buffer_bytes)

    def open_access_log(self) -> AccessLog | None:
        """The access log; None if there is to be none.

        Raises:
            InvalidOption: If its file cannot be opened.
        """
        form = self.access_log_format or (JSON if self.is_json else "common")
        return open_access_log(self.access_log, self.log_buffer_bytes, is_json=form == JSON)
