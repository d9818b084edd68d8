from __future__ import annotations

import logging

import pytest

from channels.kit.throttle import Throttle
from channels.server.counts import counts
from channels.server.cuts import LOG_SECONDS, cut_off


def test_each_is_counted_and_each_reason_has_one_line_in_its_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    now = 100.0
    throttle = Throttle(LOG_SECONDS, clock=lambda: now)
    before = counts.cut["no_pong"]
    with caplog.at_level(logging.WARNING, "django.channels.server"):
        for port in (5, 6, 7):
            cut_off("no_pong", ("192.0.2.1", port), "no answer within 20 s", throttle)
        cut_off("not_reading", ("192.0.2.2", 8), "took nothing for 30 s", throttle)
        now += LOG_SECONDS
        cut_off("no_pong", None, "no answer within 20 s", throttle)
    assert counts.cut["no_pong"] == before + 4
    assert [record.message for record in caplog.records] == [
        "Cut off 192.0.2.1:5: no answer within 20 s",
        "Cut off 192.0.2.2:8: took nothing for 30 s",
        "Cut off -: no answer within 20 s (2 more since the last such line)",
    ]
