"""The metrics of all workers: summed, kept when a worker ends, never going back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from channels.kit.families import Family
from channels.supervisor.shared_counts import CountsFolder, SharedCounts


class CountingWorker:
    """A worker with one counter and one gauge."""

    def __init__(self, folder: CountsFolder, name: str) -> None:
        self.name = name
        self.sent = self.open = 0
        self.shared = SharedCounts()
        self.shared.join(str(folder.path / name))

    def families(self) -> list[Family]:
        return [
            Family("sent", "counter", "Sent.", ("layer",), {("default",): [self.sent]}),
            Family("open", "gauge", "Open.", samples={(): [self.open]}),
            Family("info", "info", "About.", samples={(): [1]}),
        ]

    def ask(self) -> dict[str, float]:
        """What this worker answers."""
        self.shared.source = self.families
        total = self.shared.total(self.families)
        return {each.name: next(iter(each.samples.values()))[0] for each in total}


@pytest.fixture
def folder() -> Iterator[CountsFolder]:
    folder = CountsFolder()
    yield folder
    folder.remove()
    assert not folder.path.exists()


def test_each_worker_answers_for_all(folder: CountsFolder) -> None:
    one, two = CountingWorker(folder, "one"), CountingWorker(folder, "two")
    one.sent, one.open, two.sent, two.open = 3, 1, 4, 2
    two.ask()
    assert one.ask() == two.ask() == {"sent": 7, "open": 3, "info": 1}


def test_no_count_goes_back_whoever_answers(folder: CountsFolder) -> None:
    workers = [CountingWorker(folder, str(number)) for number in range(3)]
    before = 0.0
    for turn in range(30):
        for worker in workers:
            worker.sent += turn
        now = workers[turn % 3].ask()["sent"]
        assert now >= before
        before = now


def test_the_counts_of_an_ended_worker_are_kept_and_its_gauges_are_not(
    folder: CountsFolder,
) -> None:
    one, two, three = (CountingWorker(folder, name) for name in ("one", "two", "three"))
    one.sent = one.open = two.sent = two.open = 5
    one.ask()
    two.ask()
    for ended in (one, two):
        folder.keep(ended.name)
        assert three.ask()["sent"] == 10
    assert three.ask()["open"] == 0


def test_a_worker_that_is_being_kept_counts_once(folder: CountsFolder) -> None:
    one, two = CountingWorker(folder, "one"), CountingWorker(folder, "two")
    one.sent = 5
    one.ask()
    left = (folder.path / "one").read_bytes()
    folder.keep("one")
    # As another worker may find it: its counts are with the others already, its file still there.
    (folder.path / "one").write_bytes(left)
    assert two.ask()["sent"] == 5


def test_what_a_killed_worker_was_writing_is_deleted(folder: CountsFolder) -> None:
    one, two = CountingWorker(folder, "one"), CountingWorker(folder, "two")
    one.sent = 5
    one.ask()
    (folder.path / ".one").write_text('{"fami')
    assert two.ask()["sent"] == 5
    folder.keep("one")
    assert two.ask()["sent"] == 5
    assert {file.name for file in folder.path.iterdir()} == {"two", "ended"}


def test_a_worker_that_nobody_asked_writes_as_soon_as_another_was_asked(
    folder: CountsFolder,
) -> None:
    one, two = CountingWorker(folder, "one"), CountingWorker(folder, "two")
    two.sent = 2
    two.shared.look()
    assert list(folder.path.iterdir()) == []
    one.ask()
    two.shared.source = two.families
    two.shared.look()
    assert one.ask()["sent"] == 2


def test_a_folder_that_cannot_be_used_leaves_each_its_own(
    folder: CountsFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = CountingWorker(folder, "one")
    one.shared.join(str(tmp_path / "deleted" / "one"))
    one.sent = 2
    assert one.ask()["sent"] == one.ask()["sent"] == 2
    assert len(caplog.records) == 1


def test_a_process_that_is_no_worker_has_its_own() -> None:
    family = Family("sent", "counter", "Sent.", samples={(): [3]})
    assert SharedCounts().total(lambda: [family]) == [family]
