"""The hub over real sockets: what clients of ours say, and what others might."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from channels.backends.local import frames, settling
from channels.backends.local import server as server_module
from channels.backends.local.frames import Splitter, frame, pack_many
from channels.backends.local.options import HubOptions
from channels.backends.local.place import Lock, Place, find_place
from channels.backends.local.server import HubServer
from channels.layers.envelope import Envelope, Kind, decode_envelope

PATIENCE = 10.0
LONGEST = 1024 * 1024
StartHub = Callable[..., HubServer]
Connect = Callable[..., "Client"]


class Client:
    """A socket to the hub, by hand."""

    def __init__(self, place: Place) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE)
        try:
            self.socket.connect(str(place.socket))
        except OSError:
            self.socket.close()
            raise
        self._splitter = Splitter(LONGEST)
        self._frames: list[tuple[int, bytes, bytes]] = []

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def hello(self, node: bytes, *, version: int = frames.VERSION) -> Client:
        self.send(
            frame(frames.HELLO, node, frames.HELLO_BODY.pack(version, bytes(8), False, 1)),
            frame(frames.READY),
        )
        return self

    def read(self) -> tuple[int, bytes, bytes]:
        """The next frame; EOFError at the end."""
        while not self._frames:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            data, spans = self._splitter.split(data)
            self._frames += [
                (kind, data[start + frames.HEAD.size : name_end], data[name_end:end])
                for kind, start, name_end, end in spans
            ]
        return self._frames.pop(0)

    def expect(self, kind: int) -> tuple[bytes, bytes]:
        """The next frame, which must be of this kind."""
        found, name, body = self.read()
        assert found == kind, (found, name, body)
        return name, body

    def welcomed(self) -> Client:
        self.expect(frames.WELCOME)
        return self

    def answered(self, number: int) -> None:
        _, body = self.expect(frames.ANSWERED)
        assert frames.NUMBER.unpack(body) == (number,)

    def is_dropped(self) -> bool:
        while True:
            try:
                self.read()
            except EOFError:
                return True


@pytest.fixture
def place(short_path: Path) -> Place:
    place = find_place("test", short_path)
    place.prepare()
    return place


@pytest.fixture
def start_hub(place: Place) -> Iterator[StartHub]:
    started: list[HubServer] = []

    def start(**options: int) -> HubServer:
        lock = Lock.take(place.lock)
        assert lock is not None
        hub = HubServer(place, lock, HubOptions(**options), LONGEST, lambda _: 2)
        hub.start()
        started.append(hub)
        until(place.socket.exists, "the socket")
        return hub

    yield start
    for hub in started:
        hub.stop(PATIENCE)
        assert not hub.is_alive


@pytest.fixture
def connect(place: Place) -> Iterator[Connect]:
    made: list[Client] = []

    def connect(node: bytes | None = None) -> Client:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                client = Client(place)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                # Not bound yet, where another hub was; or bound and not listening.
                assert time.monotonic() < deadline
        made.append(client)
        return client if node is None else client.hello(node).welcomed()

    yield connect
    for client in made:
        client.socket.close()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.002)


def envelope(seq: int, payload: bytes = b"payload", name: str = "q") -> bytes:
    deadline = int(time.time() + 60) * 1000
    return Envelope(
        Kind.CHANNEL, name, payload, sender=b"sender00", seq=seq, deadline=deadline
    ).encoded


def push(seq: int, *, capacity: int = 100, payload: bytes = b"payload") -> bytes:
    return frame(frames.PUSH, b"q", frames.CAPACITY.pack(capacity) + envelope(seq, payload))


def demand(count: int) -> bytes:
    return frame(frames.LEASE, b"q", frames.LEASE_BODY.pack(count, 60.0))


def leased(client: Client) -> tuple[int, bytes]:
    """(number, lease) of the next message of the queue, which has come on lease."""
    name, body = client.expect(frames.LEASED)
    assert name == b"q"
    token, _ = frames.LEASED_BODY.unpack_from(body)
    return decode_envelope(body[frames.LEASED_BODY.size :]).seq, token


def test_a_groups_message_goes_to_all_who_joined_as_it_came(
    start_hub: StartHub, connect: Connect
) -> None:
    start_hub()
    first, second, third = connect(b"n1"), connect(b"n2"), connect(b"n3")
    for member in (first, second):
        member.send(frame(frames.JOIN, b"", pack_many([b"room", b"other"])))
        member.answered(1)
    third.send(frame(frames.GROUP, b"room", b"octets"), frame(frames.GROUP, b"empty", b"octets"))
    third.answered(2)
    for member in (first, second):
        assert member.expect(frames.GROUP) == (b"room", b"octets")
    second.send(frame(frames.LEAVE, b"", pack_many([b"room", b"unknown"])))
    second.answered(2)
    third.send(frame(frames.GROUP, b"room", b"more"))
    third.answered(3)
    assert first.expect(frames.GROUP) == (b"room", b"more")
    second.send(frame(frames.PING))
    second.expect(frames.PONG)


def test_a_node_that_is_not_there_is_gone(start_hub: StartHub, connect: Connect) -> None:
    start_hub()
    client = connect(b"n1")
    client.send(frame(frames.NODE, b"n1", b"octets"), frame(frames.NODE, b"n2", b"octets"))
    assert client.expect(frames.NODE) == (b"n1", b"octets")
    _, body = client.expect(frames.REFUSED)
    assert frames.REFUSED_BODY.unpack_from(body) == (2, frames.GONE)


def test_a_queue_is_first_in_first_out_and_refuses_what_is_over_capacity(
    start_hub: StartHub, connect: Connect
) -> None:
    start_hub()
    writer, reader = connect(b"n1"), connect(b"n2")
    writer.send(*(push(seq, capacity=3) for seq in range(4)), push(0, capacity=3))
    _, body = writer.expect(frames.REFUSED)
    assert frames.REFUSED_BODY.unpack_from(body) == (4, frames.FULL)
    # The fifth was sent before: done, and not stored again.
    writer.answered(5)
    reader.send(demand(2))
    assert [leased(reader)[0] for _ in range(2)] == [0, 1]
    reader.send(demand(5))
    assert leased(reader)[0] == 2


def test_queues_in_groups(start_hub: StartHub, connect: Connect) -> None:
    start_hub()
    client = connect(b"n1")
    until_then = frames.EXPIRES.pack(time.time() + 60)
    sent = [frame(frames.GROUP, b"room", envelope(seq, name="room")) for seq in range(3)]
    client.send(frame(frames.ADD_QUEUE, b"room", until_then + b"q"), *sent, sent[0])
    # The queue holds two: `start_hub` says so of all.
    name, body = client.expect(frames.OVER_CAPACITY)
    assert (name, frames.TALLY.unpack(body)) == (b"room", (1, 1))
    client.answered(5)
    client.send(frame(frames.DISCARD_QUEUE, b"room", b"q"), sent[2], demand(5))
    client.answered(7)
    assert [leased(client)[0] for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    "octets",
    [
        frame(frames.PING),
        frame(frames.HELLO, b"n1", b"short"),
        frame(frames.HELLO, b"", frames.HELLO_BODY.pack(frames.VERSION, bytes(8), False, 1)),
        b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n",
        b"\xff" * 64,
        frames.HEAD.pack(LONGEST, frames.HELLO, 0),
    ],
)
def test_who_is_no_client_is_dropped_and_the_others_stay(
    start_hub: StartHub, connect: Connect, octets: bytes
) -> None:
    hub = start_hub()
    good, hostile = connect(b"n0"), connect()
    hostile.send(octets)
    assert hostile.is_dropped()
    good.send(frame(frames.PING))
    good.expect(frames.PONG)
    assert hub.statistics()["hub_dropped_malformed"] == 1


@pytest.mark.parametrize(
    "octets",
    [
        frame(99),
        frame(frames.WELCOME),
        frame(frames.HELLO, b"n2", frames.HELLO_BODY.pack(frames.VERSION, bytes(8), False, 1)),
        frame(frames.PUSH, b"q", b"\0"),
        frame(frames.PUSH, b"\xff\xfe", frames.CAPACITY.pack(1) + envelope(1)),
        frame(frames.LEASE, b"q", b""),
        frame(frames.LEASE, b"q", frames.LEASE_BODY.pack(1, float("nan"))),
        frame(frames.JOIN, b"", b"\xff\xff\xff\xff"),
        frame(frames.ADD_QUEUE, b"room", b"now"),
        frame(frames.DISCARD_QUEUE, b"room", b"\xff"),
    ],
    # One of them holds the time.
    ids=lambda octets: f"kind {octets[4]} of {len(octets)} octets",
)
def test_a_client_that_talks_nonsense_is_dropped(
    start_hub: StartHub, connect: Connect, octets: bytes
) -> None:
    start_hub()
    good, bad = connect(b"n0"), connect(b"n1")
    bad.send(octets)
    assert bad.is_dropped()
    good.send(frame(frames.NODE, b"n1", b"x"))
    _, body = good.expect(frames.REFUSED)
    assert frames.REFUSED_BODY.unpack_from(body)[1] == frames.GONE


def test_an_envelope_of_another_version_is_counted_and_its_sender_stays(
    start_hub: StartHub, connect: Connect
) -> None:
    hub = start_hub()
    client = connect(b"n1")
    future = b"\x63" + envelope(1)[1:]
    until_then = frames.EXPIRES.pack(time.time() + 60)
    client.send(
        frame(frames.ADD_QUEUE, b"room", until_then + b"q"),
        frame(frames.PUSH, b"q", frames.CAPACITY.pack(2) + future),
        frame(frames.PUSH, b"q", frames.CAPACITY.pack(2) + b"no envelope"),
        frame(frames.PUSH_LATER, b"q", frames.LATER_BODY.pack(0.0, 5) + future),
        frame(frames.GROUP, b"room", future),
        push(2),
        demand(5),
    )
    client.answered(6)
    assert leased(client)[0] == 2
    assert hub.statistics()["hub_dropped_malformed"] == 4


def test_another_version_is_told(start_hub: StartHub, connect: Connect) -> None:
    start_hub()
    client = connect()
    client.hello(b"n1", version=9)
    _, body = client.expect(frames.TURNED_AWAY)
    assert b"not 9" in body
    assert client.is_dropped()


def test_who_never_says_its_name_is_dropped(
    start_hub: StartHub, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_HELLO_SECONDS", 0.0)
    monkeypatch.setattr(server_module, "_TICK_SECONDS", 0.01)
    start_hub()
    assert connect().is_dropped()


def test_one_process_too_many_is_turned_away(start_hub: StartHub, connect: Connect) -> None:
    hub = start_hub(max_peers=2)
    connect(b"n1")
    second = connect(b"n2")
    third = connect()
    assert b"max_peers=2" in third.expect(frames.TURNED_AWAY)[1]
    second.socket.close()
    until(lambda: hub.statistics()["hub_peers"] == 1, "it has gone")
    connect(b"n3")


def test_groups_are_bounded(start_hub: StartHub, connect: Connect) -> None:
    start_hub(group_memory=64 * 1024)
    client = connect(b"n1")
    names = [b"room%d" % number for number in range(1000)]
    client.send(frame(frames.JOIN, b"", pack_many(names)))
    assert b"group_memory" in client.expect(frames.REFUSED)[1]
    client.send(frame(frames.LEAVE, b"", pack_many(names)))
    client.answered(2)
    client.send(frame(frames.JOIN, b"", pack_many(names[:300])))
    client.answered(3)


def test_queues_are_bounded_in_octets_and_number(start_hub: StartHub, connect: Connect) -> None:
    start_hub(message_memory=64 * 1024, max_queues=1)
    client = connect(b"n1")
    client.send(*(push(seq, payload=bytes(30_000)) for seq in range(3)))
    _, body = client.expect(frames.REFUSED)
    assert frames.REFUSED_BODY.unpack_from(body) == (3, frames.FULL)
    other = frames.CAPACITY.pack(1) + envelope(9)
    client.send(frame(frames.PUSH, b"another", other))
    _, body = client.expect(frames.REFUSED)
    assert b"no room for another" in body
    client.send(demand(2))
    tokens = [leased(client)[1] for _ in range(2)]
    client.send(push(4, payload=bytes(30_000)))
    client.expect(frames.REFUSED)
    client.send(*(frame(frames.ACKNOWLEDGE, b"q", token) for token in tokens))
    client.answered(7)
    client.send(push(5, payload=bytes(30_000)))
    client.answered(8)


def test_a_peer_that_does_not_read_is_not_waited_for(start_hub: StartHub, connect: Connect) -> None:
    hub = start_hub(peer_buffer=64 * 1024)
    slow, quick, writer = connect(b"n1"), connect(b"n2"), connect(b"n3")
    for member in (slow, quick):
        member.send(frame(frames.JOIN, b"", pack_many([b"room"])))
        member.answered(1)
    for number in range(200):
        writer.send(frame(frames.GROUP, b"room", bytes(8192)))
        quick.expect(frames.GROUP)
        writer.answered(number + 1)
    assert hub.statistics()["hub_dropped_peer_buffer"] > 0
    writer.send(frame(frames.NODE, b"n1", bytes(65536)))
    _, body = writer.expect(frames.REFUSED)
    assert frames.REFUSED_BODY.unpack_from(body)[1] == frames.FULL
    kinds = [slow.read()[0]]
    while kinds[-1] != frames.GAP:
        kinds.append(slow.read()[0])
    assert kinds.count(frames.GROUP) < 200


def test_a_new_connection_of_a_node_takes_the_old_ones_place(
    start_hub: StartHub, connect: Connect
) -> None:
    start_hub()
    old = connect(b"n1")
    new = connect(b"n1")
    assert old.is_dropped()
    new.send(frame(frames.NODE, b"n1", b"octets"))
    new.expect(frames.NODE)


def test_what_a_dead_reader_was_not_sent_goes_to_another(
    start_hub: StartHub, connect: Connect
) -> None:
    hub = start_hub(peer_buffer=64 * 1024)
    writer, stuck, reader = connect(b"n1"), connect(b"n2"), connect(b"n3")
    stuck.send(frame(frames.JOIN, b"", pack_many([b"room"])), demand(1))
    stuck.answered(1)
    for number in range(100):
        writer.send(frame(frames.GROUP, b"room", bytes(8192)))
        writer.answered(number + 1)
    assert hub.statistics()["hub_dropped_peer_buffer"] > 0
    writer.send(push(1))
    writer.answered(101)
    stuck.socket.close()
    reader.send(demand(1))
    assert leased(reader)[0] == 1


def test_a_hub_whose_files_were_removed_ends(
    start_hub: StartHub, connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "_TICK_SECONDS", 0.01)
    hub = start_hub()
    client = connect(b"n1")
    place.lock.unlink()
    assert client.is_dropped()
    until(lambda: not hub.is_alive, "its end")


def test_a_new_hub_waits_for_those_who_were_there(
    start_hub: StartHub, connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SETTLE_SECONDS", PATIENCE)
    before = Lock.take(place.node("nbefore"))
    assert before is not None
    start_hub()
    new = connect().hello(b"nnew")
    new.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        new.read()
    new.socket.settimeout(PATIENCE)
    connect(b"nbefore")
    new.welcomed()
    before.release()


def test_a_new_hub_does_not_wait_for_who_dies_meanwhile(
    start_hub: StartHub, connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settling, "SETTLE_SECONDS", 10 * PATIENCE)
    dying = Lock.take(place.node("ndying"))
    assert dying is not None
    start_hub()
    new = connect().hello(b"nnew")
    dying.release()
    new.welcomed()


def test_the_end_bids_farewell_and_leaves_what_is_unread(
    start_hub: StartHub, connect: Connect
) -> None:
    first = start_hub()
    client = connect(b"n1")
    client.send(push(1), push(2))
    client.answered(2)
    first.stop(PATIENCE)
    client.expect(frames.GOAWAY)
    assert client.is_dropped()
    start_hub()
    again = connect(b"n1")
    # Sent again, as if its answer had been lost.
    again.send(push(1), push(3), demand(4))
    again.answered(2)
    assert [leased(again)[0] for _ in range(3)] == [1, 2, 3]


def test_another_users_process_is_turned_away(
    start_hub: StartHub, connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.geteuid()

    def other(_: Any) -> int:
        return uid + 1

    monkeypatch.setattr("channels.backends.local.place.peer_uid", other)
    start_hub()
    assert b"runs as user" in connect().expect(frames.TURNED_AWAY)[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_real_process_of_another_user_is_turned_away(start_hub: StartHub, place: Place) -> None:
    start_hub()
    # As if the directory's mode had been changed while it was in use.
    for path, mode in ((place.directory.parent, 0o711), (place.directory, 0o711)):
        path.chmod(mode)
    place.socket.chmod(0o777)
    script = (
        "import socket, sys\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.connect(sys.argv[1])\n"
        "print(connection.recv(1000))\n"
    )
    python = Path("/usr/bin/python3")
    if not python.exists():
        pytest.skip("no Python that another user may run")
    done = subprocess.run(
        [str(python), "-c", script, str(place.socket)],
        user=65534,
        cwd="/",
        env={},
        capture_output=True,
        check=True,
        timeout=PATIENCE,
    )
    assert b"it runs as user 65534" in done.stdout


def test_stop_from_many_threads_at_once(start_hub: StartHub, connect: Connect) -> None:
    hub = start_hub()
    connect(b"n1")
    threads = [threading.Thread(target=hub.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not hub.is_alive
