"""Projects at the stages of the tutorial."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tutorial import sources
from tests.tutorial.project import LAYER, Project


@pytest.fixture
def part_1(tmp_path: Path) -> Project:
    """Index page, served by plain Django."""
    project = Project.start(tmp_path)
    project.start_app("chat")
    project.install("chat")
    project.write("chat/templates/chat/index.html", sources.INDEX_HTML)
    project.write("chat/views.py", sources.VIEWS_INDEX)
    project.write("chat/urls.py", sources.URLS_INDEX)
    project.write("mysite/urls.py", sources.ROOT_URLS)
    return project


@pytest.fixture
def with_channels(part_1: Project) -> Project:
    """The end of part 1: Channels serves the index page."""
    part_1.write("mysite/routing.py", sources.EMPTY_ROUTING)
    part_1.install("channels")
    part_1.set(ASGI_APPLICATION="mysite.routing.application")
    return part_1


@pytest.fixture
def with_room(with_channels: Project) -> Project:
    """Part 2 up to the room page, whose WebSocket finds no consumer."""
    with_channels.write("chat/templates/chat/room.html", sources.ROOM_HTML)
    with_channels.write("chat/views.py", sources.VIEWS_ROOM)
    with_channels.write("chat/urls.py", sources.URLS_ROOM)
    return with_channels


@pytest.fixture
def with_consumer(with_room: Project) -> Project:
    """Part 2 up to the first consumer, which echoes."""
    with_room.write("chat/consumers.py", sources.ECHO_CONSUMERS)
    with_room.write("chat/routing.py", sources.CHAT_ROUTING)
    with_room.write("mysite/routing.py", sources.ROOT_ROUTING)
    with_room.manage("migrate")
    return with_room


@pytest.fixture
def part_2(with_consumer: Project) -> Project:
    """The end of part 2: rooms, by a synchronous consumer."""
    with_consumer.set(CHANNEL_LAYERS={"default": LAYER})
    with_consumer.write("chat/consumers.py", sources.SYNC_CONSUMERS)
    return with_consumer


@pytest.fixture
def part_3(part_2: Project) -> Project:
    """The end of part 3: the same, asynchronous."""
    part_2.write("chat/consumers.py", sources.ASYNC_CONSUMERS)
    return part_2
