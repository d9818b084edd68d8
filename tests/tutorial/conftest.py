"""Projects at the stages of the tutorial: typed once, copied for each test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tutorial import sources
from tests.tutorial.project import LAYER, Project


def type_index_page(project: Project) -> None:
    """Part 1 as far as plain Django goes."""
    project.start_app("chat")
    project.install("chat")
    project.write("chat/templates/chat/index.html", sources.INDEX_HTML)
    project.write("chat/views.py", sources.VIEWS_INDEX)
    project.write("chat/urls.py", sources.URLS_INDEX)
    project.write("mysite/urls.py", sources.ROOT_URLS)


def type_channels(project: Project) -> None:
    """The end of part 1: Channels serves the index page."""
    project.write("mysite/routing.py", sources.EMPTY_ROUTING)
    project.install("channels")
    project.set(ASGI_APPLICATION="mysite.routing.application")


def type_room_page(project: Project) -> None:
    """Part 2 up to the room page, whose WebSocket finds no consumer."""
    project.write("chat/templates/chat/room.html", sources.ROOM_HTML)
    project.write("chat/views.py", sources.VIEWS_ROOM)
    project.write("chat/urls.py", sources.URLS_ROOM)


def type_consumer(project: Project) -> None:
    """Part 2 up to the first consumer, which echoes."""
    project.write("chat/consumers.py", sources.ECHO_CONSUMERS)
    project.write("chat/routing.py", sources.CHAT_ROUTING)
    project.write("mysite/routing.py", sources.ROOT_ROUTING)
    project.manage("migrate")


def type_rooms(project: Project) -> None:
    """The end of part 2: rooms, by a synchronous consumer."""
    project.set(CHANNEL_LAYERS={"default": LAYER})
    project.write("chat/consumers.py", sources.SYNC_CONSUMERS)


def type_async_rooms(project: Project) -> None:
    """The end of part 3: the same, asynchronous."""
    project.write("chat/consumers.py", sources.ASYNC_CONSUMERS)


STAGES = {
    "part_1": type_index_page,
    "with_channels": type_channels,
    "with_room": type_room_page,
    "with_consumer": type_consumer,
    "part_2": type_rooms,
    "part_3": type_async_rooms,
}


@pytest.fixture(scope="session")
def stages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Project]:
    """The project after each stage, not to be changed."""
    project = Project.start(tmp_path_factory.mktemp("typed"))
    typed = {}
    for name, type_stage in STAGES.items():
        type_stage(project)
        typed[name] = project.copy(tmp_path_factory.mktemp(name))
    return typed


@pytest.fixture
def part_1(stages: dict[str, Project], tmp_path: Path) -> Project:
    return stages["part_1"].copy(tmp_path)


@pytest.fixture
def with_channels(stages: dict[str, Project], tmp_path: Path) -> Project:
    return stages["with_channels"].copy(tmp_path)


@pytest.fixture
def with_room(stages: dict[str, Project], tmp_path: Path) -> Project:
    return stages["with_room"].copy(tmp_path)


@pytest.fixture
def with_consumer(stages: dict[str, Project], tmp_path: Path) -> Project:
    return stages["with_consumer"].copy(tmp_path)


@pytest.fixture
def part_2(stages: dict[str, Project], tmp_path: Path) -> Project:
    return stages["part_2"].copy(tmp_path)


@pytest.fixture
def part_3(stages: dict[str, Project], tmp_path: Path) -> Project:
    return stages["part_3"].copy(tmp_path)
