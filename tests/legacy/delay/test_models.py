"""The rows of delayed messages."""

from __future__ import annotations

import contextlib
import io
import json
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from channels import Channel
from channels.delay.models import DelayedMessage
from channels.exceptions import ChannelFull
from channels.test import ChannelTestCase, Client
from tests.legacy.routes import routed


def delayed(delay: float, **content: object) -> DelayedMessage:
    values: dict[str, Any] = {"content": json.dumps(content), "delay": delay}
    row = DelayedMessage(channel_name="jobs", **values)
    row.save()
    return row


@routed()
class TestDelayedMessage(ChannelTestCase):
    def test_it_is_due_after_its_delay(self) -> None:
        soon, late = delayed(-1), delayed(60_000)
        assert list(DelayedMessage.objects.is_due()) == [soon]
        assert 0 < late.delay <= 60_000
        assert soon.delay < 0
        assert str(late) == f"to jobs at {late.due_date}"

    def test_sent_it_is_gone(self) -> None:
        delayed(0, number=7).send()
        message = self.get_next_message("jobs", require=True)
        assert message is not None
        assert message.content == {"number": 7}
        assert not DelayedMessage.objects.exists()

    def test_while_the_channel_is_full_it_waits(self) -> None:
        with contextlib.suppress(ChannelFull):
            while True:
                Channel("jobs").send({"first": True})
        row = delayed(0)
        row.send(requeue_delay=30_000)
        assert 0 < DelayedMessage.objects.get().delay <= 30_000
        Client().get_next_message("jobs")
        row.send()
        assert not DelayedMessage.objects.exists()

    def test_one_of_two_workers_claims_it(self) -> None:
        delayed(0)
        first, second = DelayedMessage.objects.get(), DelayedMessage.objects.get()
        until = timezone.now() + timedelta(minutes=1)
        assert first.claim(until)
        assert not second.claim(until)
        assert DelayedMessage.objects.get().due_date == until


@pytest.mark.django_db
def test_the_table_is_the_one_that_channels_1_made() -> None:
    output = io.StringIO()
    call_command("makemigrations", "delay", "--check", "--dry-run", stdout=output)
    assert "No changes detected" in output.getvalue()
    assert DelayedMessage._meta.db_table == "delay_delayedmessage"
    columns = [field.column for field in DelayedMessage._meta.fields]
    assert columns == ["id", "due_date", "channel_name", "content"]
