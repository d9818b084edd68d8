"""Who follows the tutorial gets what it promises, and what stands in examples/tutorial."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.servers import redis_server
from tests.docs.tutorial import PARTS, ROOT, SETTINGS, assignments, blocks, write

EXAMPLE = ROOT / "examples" / "tutorial"

#: Two windows in one room, one in another: what the chat does from the end of part 2 on.
TALK = """
import asyncio, json
from channels.testing import WebsocketCommunicator
from mysite.asgi import application

async def enter(room):
    window = WebsocketCommunicator(
        application, f"/ws/chat/{room}/", headers=[(b"origin", b"http://localhost")]
    )
    assert (await window.connect(timeout=20))[0]
    return window

async def talk():
    here, there, elsewhere = [await enter(room) for room in ("lobby", "lobby", "kitchen")]
    await here.send_to(text_data=json.dumps({"message": "hello"}))
    for window in (here, there):
        assert json.loads(await window.receive_from(timeout=20)) == {"message": "hello"}
    await elsewhere.send_to(text_data=json.dumps({"message": "anyone?"}))
    assert json.loads(await elsewhere.receive_from(timeout=20)) == {"message": "anyone?"}
    for window in (here, there, elsewhere):
        await window.disconnect(timeout=20)

asyncio.run(talk())
"""


def run(project: Path, *command: str) -> str:
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{project}",
        "DJANGO_SETTINGS_MODULE": "mysite.settings",
    }
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    run(tmp_path, "-m", "django", "startproject", "mysite", str(tmp_path), "--settings", "")
    (tmp_path / "chat").mkdir()
    (tmp_path / "chat" / "__init__.py").touch()
    return tmp_path


def test_there_are_four_parts_with_something_to_type() -> None:
    assert len(PARTS) == 4
    assert all(blocks(part) for part in PARTS)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_the_project_stands_after_each_part(project: Path, count: int) -> None:
    for part in PARTS[:count]:
        write(project, part)
    run(project, "manage.py", "check", "--fail-level", "WARNING")
    if count >= 2:
        run(project, "-c", "import django; django.setup()\n" + TALK)


@pytest.mark.parametrize(
    "backend",
    ["channels_redis.core.RedisChannelLayer", "channels_redis.pubsub.RedisPubSubChannelLayer"],
)
def test_the_project_runs_on_redis(project: Path, tmp_path: Path, backend: str) -> None:
    for part in PARTS:
        write(project, part)
    with redis_server(tmp_path / "redis") as server:
        layer = {"BACKEND": backend, "CONFIG": {"hosts": [("127.0.0.1", server.port)]}}
        with (project / SETTINGS).open("a") as settings:
            settings.write(f"\nCHANNEL_LAYERS = {{'default': {layer!r}}}\n")
        run(project, "manage.py", "check", "--fail-level", "WARNING")
        said = run(project, "-W", "error", "-c", "import django; django.setup()\n" + TALK)
    assert said == "", "nothing is left open at the end"


def test_the_tutorial_ends_in_the_example() -> None:
    written: dict[str, str] = {}
    settings: dict[str, str] = {}
    for part in PARTS:
        for path, code in blocks(part):
            if path == SETTINGS:
                settings |= assignments(code)
            else:
                written[path] = code
    for path, code in written.items():
        assert (EXAMPLE / path).read_text() == code, f"{path} differs from the tutorial's last"
    example = assignments((EXAMPLE / SETTINGS).read_text())
    assert {name: example.get(name) for name in settings} == settings
    made = {"manage.py", SETTINGS, "mysite/__init__.py", "chat/__init__.py"}
    there = {str(path.relative_to(EXAMPLE)) for path in tracked(EXAMPLE)}
    assert there == made | written.keys()


def tracked(folder: Path) -> list[Path]:
    """The folder's source files; databases and caches of a run are none."""
    kept = {".py", ".html", ".js", ".css"}
    return [path for path in folder.rglob("*") if path.is_file() and path.suffix in kept]
