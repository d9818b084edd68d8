"""The command that runs a worker."""

from __future__ import annotations

import io
import logging
import re
import signal
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from channels.kit.threads import ThreadOptions
from channels.layers import InMemoryChannelLayer, channel_layers
from channels.legacy.worker import WorkerGroup
from channels.management import routed as routed_commands
from channels.management.commands import runworker
from channels.management.commands.runworker import Command
from channels.routing import ChannelNameRouter, ProtocolTypeRouter
from channels.worker import WorkerOptions
from tests.processes import Child
from tests.tutorial.project import Project


async def application(scope: Any, receive: Any, send: Any) -> None: ...


routed = ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": application})})
unrouted = ProtocolTypeRouter({"websocket": application})


class Recorded:
    """A worker class written for other releases: it knows no options."""

    made: ClassVar[list[Any]] = []

    def __init__(self, application: Any, channels: Any, channel_layer: Any) -> None:
        self.made.append((application, channels, channel_layer, None))

    def run(self) -> None:
        """Nothing to do."""


class RecordedWithOptions(Recorded):
    def __init__(self, application: Any, channels: Any, channel_layer: Any, options: Any) -> None:
        self.made.append((application, channels, channel_layer, options))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> type[Recorded]:
    Recorded.made.clear()
    monkeypatch.setattr(Command, "worker_class", Recorded)
    monkeypatch.setattr(channel_layers, "backends", {})
    return Recorded


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ASGI_APPLICATION = f"{__name__}.application"


def run(*arguments: str) -> str:
    stderr = io.StringIO()
    call_command("runworker", *arguments, stderr=stderr, no_color=True)
    return stderr.getvalue()


def test_a_worker_runs_for_the_channels(
    worker: type[Recorded], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "django.channels.worker"):
        run("one", "two")
    ((made, channels, layer, _),) = worker.made
    assert made is application
    assert channels == ["one", "two"]
    assert isinstance(layer, InMemoryChannelLayer)
    assert "one, two of layer 'default'" in caplog.text


def test_messages_of_the_project_keep_their_language() -> None:
    """Django would otherwise run the command, and so the consumers, in English."""
    assert Command.leave_locale_alone is True


def test_options_reach_the_worker(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Command, "worker_class", RecordedWithOptions)
    run("--parallel", "3", "jobs")
    assert worker.made[0][3] == WorkerOptions(parallel=3)
    run("--shutdown-timeout", "none", "jobs")
    assert worker.made[1][3] == WorkerOptions(shutdown_timeout=None)


def test_the_threads_of_sync_consumers(worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    configured: list[ThreadOptions] = []
    monkeypatch.setattr(runworker, "configure_threads", configured.append)
    run("a", "--sync-threads", "3")
    assert configured == [ThreadOptions(sync_threads=3)]


def test_options_are_read_from_the_environment_and_a_flag_wins(
    worker: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Command, "worker_class", RecordedWithOptions)
    monkeypatch.setenv("CHANNELS_PARALLEL", "3")
    monkeypatch.setenv("CHANNELS_PORT", "8000")  # of `channels serve`, in the same environment
    monkeypatch.setenv("CHANNELS_PARALEL", "4")
    run("jobs")
    run("--parallel", "5", "jobs")
    assert [made[3] for made in worker.made] == [WorkerOptions(parallel=n) for n in (3, 5)]
    assert (
        caplog.text.count("CHANNELS_PARALEL: it is ignored; did you mean CHANNELS_PARALLEL?") == 2
    )
    assert "CHANNELS_PORT" not in caplog.text
    monkeypatch.setenv("CHANNELS_PARALLEL", "0")
    with pytest.raises(CommandError, match="CHANNELS_PARALLEL: parallel=0: the least is 1"):
        run("jobs")


def test_an_option_out_of_bounds_is_refused(worker: Any) -> None:
    with pytest.raises(CommandError, match="the least is 1"):
        run("--parallel", "0", "jobs")


@pytest.mark.parametrize("are_checked", [False, True])
def test_a_layer_of_one_process_is_warned_of_once(
    worker: Any, monkeypatch: pytest.MonkeyPatch, are_checked: bool
) -> None:
    monkeypatch.setattr(sys, "argv", ["manage.py", "runworker", "jobs"])
    stderr = io.StringIO()
    call_command("runworker", "jobs", stderr=stderr, no_color=True, skip_checks=not are_checked)
    said = stderr.getvalue()
    assert ("stays inside one process" in said) is not are_checked
    assert ("channels.W004" in said) is are_checked


def test_another_layer(worker: type[Recorded]) -> None:
    backend = f"{__name__}.OtherLayer"
    with override_settings(CHANNEL_LAYERS={"other": {"BACKEND": backend}}):
        assert run("--layer", "other", "jobs") == ""
    assert isinstance(worker.made[0][2], OtherLayer)


class OtherLayer:
    """A third party's, whose reach is not known."""


def test_without_layers(worker: Any) -> None:
    with (
        override_settings(CHANNEL_LAYERS={}),
        pytest.raises(
            CommandError,
            match=r"You do not have any CHANNEL_LAYERS configured\. Write .*LocalChannelLayer",
        ),
    ):
        run("jobs")


def test_an_unknown_layer(worker: Any) -> None:
    with pytest.raises(
        CommandError, match="There is no 'other' in CHANNEL_LAYERS, which has 'default'"
    ):
        run("--layer", "other", "jobs")


class TestWithRouting:
    """What is refused, and with which advice; that it works is shown in tests/legacy."""

    @pytest.fixture(autouse=True)
    def layers(self, settings: Any, short_path: Path) -> None:
        settings.CHANNEL_LAYERS = {
            "default": {
                "BACKEND": "channels.layers.LocalChannelLayer",
                "CONFIG": {"directory": str(short_path)},
                "ROUTING": {"jobs": f"{__name__}.run"},
            },
            "inner": {"BACKEND": "asgiref.inmemory.ChannelLayer", "ROUTING": []},
            "today": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
        }

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["a", "b"], "to listen on some of them: runworker --only-channels a --only-channels"),
            (["--parallel", "3"], "--parallel: of no use where the layer has ROUTING, as"),
            (["--sync-threads", "3"], "--threads says how many consumers run at once"),
            (["--threads", "0"], "threads=0: the least is 1"),
            (["--only-channels", "mail.*"], "leave no channel of the routing, which has .*jobs"),
            (["--layer", "inner"], "cannot span multiple processes with the in-memory layer"),
            (
                ["--layer", "today", "--threads", "2", "--only-channels", "a", "a"],
                "--only-channels, --threads: of no use for named channels",
            ),
        ],
    )
    def test_what_makes_no_sense_is_told_in_one_line(self, words: list[str], said: str) -> None:
        with pytest.raises(CommandError, match=said) as raised:
            run(*words)
        assert "\n" not in str(raised.value)

    def test_the_options_reach_the_workers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[dict[str, Any]] = []

        class NoWorkers(WorkerGroup):
            def __init__(self, layer: Any, **given: Any) -> None:
                made.append(given)
                super().__init__(layer, **given)

            def run(self) -> None:
                """Nothing to do."""

        monkeypatch.setattr(routed_commands, "WorkerGroup", NoWorkers)
        monkeypatch.setenv("CHANNELS_THREADS", "3")
        run("--exclude-channels", "http.*", "--shutdown-timeout", "5")
        run("--threads", "2", "--disable-graceful-stop", "-v", "2")
        first, second = made
        assert first["n_threads"] == 3
        assert first["exclude_channels"] == ("http.*",)
        assert first["options"].shutdown_timeout == 5.0
        assert first["callback"] is None
        assert second["n_threads"] == 2
        assert second["stop_gracefully"] is False
        assert second["callback"] is not None


WORKER = """\
import threading
import time

from asgiref.sync import async_to_sync
from channels.consumer import SyncConsumer
from channels.layers import get_channel_layer
from channels.routing import ChannelNameRouter


class Sleeper(SyncConsumer):
    def job(self, message):
        print("working", flush=True)
        time.sleep(600)


application = ChannelNameRouter({"jobs": Sleeper})


def send():
    async_to_sync(get_channel_layer().send)("jobs", {"type": "job"})


threading.Thread(target=send, daemon=True).start()
"""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["jo/bs"], r"^CommandError: Channel name must be a valid .* Found 'jo/bs'\.$"),
        (
            ["jobs", "mail"],
            r"^CommandError: Nothing handles the channel 'mail': .* has 'jobs'\.",
        ),
    ],
)
def test_a_channel_that_cannot_be_worked_on(words: list[str], said: str) -> None:
    with (
        override_settings(ASGI_APPLICATION=f"{__name__}.routed"),
        pytest.raises(CommandError) as raised,
    ):
        run(*words)
    assert re.search(said, f"CommandError: {raised.value}")


def test_an_application_without_an_entry_for_channels_is_refused(worker: type[Recorded]) -> None:
    said = r"""Nothing handles the channel 'mail': .*\{"mail": YourConsumer\.as_asgi\(\)\}\)"""
    with (
        override_settings(ASGI_APPLICATION=f"{__name__}.unrouted"),
        pytest.raises(CommandError, match=said),
    ):
        run("mail")
    assert not worker.made


def test_an_application_that_cannot_be_imported_is_told_from_its_line_on(tmp_path: Path) -> None:
    project = Project.start(tmp_path)
    project.install("channels")
    project.set(
        ASGI_APPLICATION="mysite.asgi.application",
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    )
    project.write("mysite/asgi.py", "import os\n\nos.envron\n")
    with Child("manage.py", "runworker", "jobs", "--skip-checks", cwd=project.folder) as worker:
        assert worker.wait() == 1
    assert "CommandError: importing mysite.asgi.application failed:" in worker.output
    assert "runworker.py" not in worker.output


def test_a_wrong_flag_is_told_without_a_page_of_flags(tmp_path: Path) -> None:
    project = Project.start(tmp_path)
    project.install("channels")
    with Child("manage.py", "runworker", "jobs", "--paralel", "3", cwd=project.folder) as worker:
        assert worker.wait() == 2
    assert worker.output == (
        "usage: manage.py runworker [options] [channel ...]\n"
        "manage.py runworker: error: unrecognized arguments: --paralel 3\n"
    )


FAILING = """\
import threading

from asgiref.sync import async_to_sync
from channels.consumer import SyncConsumer
from channels.layers import get_channel_layer
from channels.routing import ChannelNameRouter, ProtocolTypeRouter


class Failing(SyncConsumer):
    def job(self, message):
        raise ValueError("boom")


application = ProtocolTypeRouter({"channel": ChannelNameRouter({"jobs": Failing.as_asgi()})})


def send():
    async_to_sync(get_channel_layer().send)("jobs", {"type": "job"})


threading.Thread(target=send, daemon=True).start()
"""


@pytest.mark.parametrize("debug", [False, True])
def test_it_tells_what_happens_whatever_the_settings(tmp_path: Path, debug: bool) -> None:
    project = Project.start(tmp_path)
    project.install("channels")
    delivery = {"jobs": {"max_attempts": 2, "retry_delay": 0.0}}
    layer = {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"delivery": delivery}}
    project.set(
        DEBUG=debug,
        ASGI_APPLICATION="mysite.asgi.application",
        CHANNEL_LAYERS={"default": layer},
    )
    project.write("mysite/asgi.py", FAILING)
    with Child("manage.py", "runworker", "jobs", cwd=project.folder) as worker:
        worker.wait_for("went to dead-letters")
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
    lines = worker.output.splitlines()
    # Once, also where Django's own settings show them.
    for said in (
        r"^[-\d]+ [:,\d]+ INFO +Started worker, channels \S+, process \d+: jobs of layer",
        r"ERROR +Exception in Failing while handling 'job': channel 'jobs'$",
        r"WARNING +Channel 'jobs': attempt 1 of 2 failed: ValueError: boom$",
        r"WARNING +Channel 'jobs': attempt 2 of 2 failed: ValueError: boom$",
        r"INFO +Stopping: ",
        r"INFO +Stopped\.$",
    ):
        found = [line for line in lines if re.search(said, line)]
        attempts = 2 if "Exception in" in said else 1
        assert debug or len(found) == attempts, (said, worker.output)
    assert worker.output.count("\nValueError: boom") == 2


@pytest.mark.parametrize("signals", [1, 2])
def test_a_handler_that_sleeps_does_not_hold_the_process(tmp_path: Path, signals: int) -> None:
    project = Project.start(tmp_path)
    project.install("channels")
    project.set(
        ASGI_APPLICATION="mysite.asgi.application",
        CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}},
    )
    project.write("mysite/asgi.py", WORKER)
    words = ("manage.py", "runworker", "--shutdown-timeout", "0.1", "jobs")
    with Child(*words, cwd=project.folder) as worker:
        worker.wait_for("^working$")
        worker.process.send_signal(signal.SIGTERM)
        if signals == 2:
            worker.wait_for("handlers still run after|^working$")
            worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert re.search(
        r"still running: .*thread 'channels-sync_0' at \S+asgi.py:\d+ in job", worker.output
    )
