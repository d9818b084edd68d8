from __future__ import annotations

import logging

import pytest

from channels.server.counts import counts
from channels.server.cuts import LOG_SECONDS, CutLog, cut_off


def test_each_reason_has_one_line_in_its_time(caplog: pytest.LogCaptureFixture) -> None:
    now = 100.0
    log = CutLog(clock=lambda: now)
    with caplog.at_level(logging.WARNING, "django.channels.server"):
        for _ in range(3):
            log.report("no_pong", ("192.0.2.1", 5), "no answer within 20 s")
        log.report("not_reading", ("192.0.2.2", 6), "took nothing for 30 s")
        now += LOG_SECONDS
        log.report("no_pong", None, "no answer within 20 s")
    assert [record.message for record in caplog.records] == [
        "Cut off 192.0.2.1:5: no answer within 20 s",
        "Cut off 192.0.2.2:6: took nothing for 30 s",
        "Cut off -: no answer within 20 s (2 more since the last such line)",
    ]


def test_each_one_is_counted() -> None:
    before = counts.cut["no_pong"]
    for _ in range(3):
        cut_off("no_pong", None, "no answer")
    assert counts.cut["no_pong"] == before + 3
