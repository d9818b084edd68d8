"""What one hub leaves and the next one takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from channels.backends.local import handover
from channels.backends.local.options import HubOptions
from channels.backends.local.switchboard import Switchboard
from channels.kit.clock import ManualClock
from channels.layers.envelope import Envelope, Kind


def board() -> Switchboard:
    return Switchboard(HubOptions(), ManualClock(), lambda _: 100)


def envelope(seq: int, payload: bytes = b"payload") -> Envelope:
    return Envelope(
        Kind.CHANNEL, "q", payload, sender=b"sender00", seq=seq, deadline=2_000_000_000_000
    )


def test_everything_goes_over(tmp_path: Path) -> None:
    old, new = board(), board()
    for seq in range(5):
        assert not old.seen.is_repeat(b"sender00", seq)
        old.engine.push("q", envelope(seq), 100)
    old.engine.add("room", "q", 2_000_000_000.0)
    path = tmp_path / "hub.left"
    handover.leave(old, path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert handover.take_over(new, path) == old.epoch
    assert [each.seq for each in new.engine.queues["q"].envelopes] == list(range(5))
    assert new.engine.octets == old.engine.octets
    assert new.engine.groups == {"room": {"q": 2_000_000_000.0}}
    assert all(new.seen.is_repeat(b"sender00", seq) for seq in range(5))
    assert not new.seen.is_repeat(b"sender00", 5)
    assert not path.exists()


def test_nothing_was_left(tmp_path: Path) -> None:
    assert handover.take_over(board(), tmp_path / "hub.left") == b""


@pytest.mark.parametrize("damage", [b"\xc1", b"\x93\xa3hub\x63\xc4\x00", b"\x01", b"\xa1"])
def test_what_cannot_be_read_is_told_and_stops_nobody(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "hub.left"
    path.write_bytes(damage)
    new = board()
    handover.take_over(new, path)
    assert not new.engine.queues
    assert not path.exists()
    assert "cannot be read" in caplog.text


def test_a_torn_file_gives_what_is_whole(tmp_path: Path) -> None:
    old, new, path = board(), board(), tmp_path / "hub.left"
    for seq in range(5):
        old.engine.push("q", envelope(seq, b"x" * 100), 100)
    handover.leave(old, path)
    path.write_bytes(path.read_bytes()[:-30])
    handover.take_over(new, path)
    assert [each.seq for each in new.engine.queues["q"].envelopes] == list(range(1, 5))


def test_a_link_in_its_place_is_not_written_through(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "hub.left"
    victim.write_text("precious")
    path.symlink_to(victim)
    path.with_suffix(".part").symlink_to(victim)
    handover.leave(board(), path)
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
