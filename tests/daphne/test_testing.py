"""The tools for tests over real sockets."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import pytest

from channels.kit.types import Application, Receive, Scope, Send
from daphne import testing
from daphne.testing import BaseDaphneTestingInstance, DaphneProcess, DaphneTestingInstance
from tests.tutorial.browsing import get


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two seconds are the class's own, and too few for a new process on a busy machine.
    monkeypatch.setattr(BaseDaphneTestingInstance, "startup_timeout", 20)


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"served"})


def get_application() -> Application:
    return application


def leave_a_mark(path: Path) -> None:
    path.touch()


def test_a_process_serves_until_it_is_terminated(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    process = DaphneProcess(
        host="127.0.0.1",
        get_application=get_application,
        kwargs={"server_name": "mine"},
        setup=partial(leave_a_mark, before),
        teardown=partial(leave_a_mark, after),
    )
    process.start()
    try:
        assert process.ready.wait(20)
        assert before.exists()
        assert get(process.port.value, "/") == (200, "served")
        assert process.errors.empty()
        assert not after.exists()
    finally:
        process.terminate()
        process.join(20)
    assert process.exitcode == 0
    assert after.exists()


def test_an_application_of_ones_own() -> None:
    with BaseDaphneTestingInstance(application=application) as instance:
        assert get(instance.port, "/") == (200, "served")


def test_what_the_application_received_and_what_it_shall_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing.TestApplication, "setup_storage", tmp_path / "setup.testio")
    monkeypatch.setattr(testing.TestApplication, "result_storage", tmp_path / "result.testio")
    with DaphneTestingInstance() as instance:
        with pytest.raises(ValueError, match="received nothing"):
            instance.get_received()
        instance.add_send_messages(
            [
                {"type": "http.response.start", "status": 202, "headers": []},
                {"type": "http.response.body", "body": b"as told"},
            ]
        )
        assert get(instance.port, "/page?a=b") == (202, "as told")
        scope, messages = instance.get_received()
    assert (scope["path"], scope["query_string"]) == ("/page", b"a=b")
    assert messages[0]["type"] == "http.request"
    assert not testing.TestApplication.result_storage.exists()


def test_nothing_is_installed_again() -> None:
    testing._reinstall_reactor()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make another user's file")
def test_what_another_user_has_put_there_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing.TestApplication, "result_storage", tmp_path / "result.testio")
    testing.TestApplication.save_result({"type": "http"}, [])
    os.chown(testing.TestApplication.result_storage, 65534, -1)
    with pytest.raises(PermissionError, match="another user"):
        testing.TestApplication.load_result()
    (tmp_path / "link").symlink_to("result.testio")
    monkeypatch.setattr(testing.TestApplication, "result_storage", tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links"):
        testing.TestApplication.load_result()
