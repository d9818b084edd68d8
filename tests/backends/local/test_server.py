"""The hub over real sockets: what clients of ours say, and what others might."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest

from channels.backends.local import server as server_module
from channels.backends.local.options import HubOptions
from channels.backends.local.place import Lock, Place, find_place
from channels.backends.local.protocol import VERSION
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
        self._unpacker = msgpack.Unpacker()

    def send(self, *messages: tuple[Any, ...] | bytes) -> None:
        packed = [each if isinstance(each, bytes) else msgpack.packb(each) for each in messages]
        self.socket.sendall(b"".join(packed))

    def hello(self, node: str, *, version: int = VERSION) -> Client:
        self.send(hello(node, version), ("ready",))
        return self

    def read(self) -> list[Any]:
        """The next message; EOFError at the end."""
        while True:
            for message in self._unpacker:
                return list(message)
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise EOFError
            self._unpacker.feed(data)

    def expect(self, kind: str) -> list[Any]:
        """The fields of the next message, which must be of this kind."""
        found, *fields = self.read()
        assert found == kind, (found, fields)
        return fields

    def welcomed(self) -> Client:
        self.expect("welcome")
        return self

    def answered(self, number: int) -> None:
        assert self.expect("answered") == [number]

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

    def connect(node: str | None = None) -> Client:
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


def hello(node: str, version: int = VERSION) -> tuple[Any, ...]:
    return "hello", version, node, b"", False, 1


def push(seq: int, *, capacity: int = 100, payload: bytes = b"payload") -> tuple[Any, ...]:
    return "push", "q", envelope(seq, payload), capacity


def demand(count: int) -> tuple[Any, ...]:
    return "demand", "q", count, 60_000


def in_a_minute() -> int:
    return int(time.monotonic() + 60) * 1000


def leased(client: Client) -> tuple[int, bytes]:
    """(number, lease) of the next message of the queue, which has come on lease."""
    queue, token, _, data = client.expect("leased")
    assert queue == "q"
    return decode_envelope(data).seq, token


def test_a_groups_message_goes_to_all_who_joined_as_it_came(
    start_hub: StartHub, connect: Connect
) -> None:
    start_hub()
    first, second, third = connect("n1"), connect("n2"), connect("n3")
    for member in (first, second):
        member.send(("join", "room"), ("join", "other"))
        member.answered(2)
    third.send(("publish", "room", b"octets"), ("publish", "empty", b"octets"))
    third.answered(2)
    for member in (first, second):
        assert member.expect("envelope") == [b"octets"]
    second.send(("leave", "room"), ("leave", "unknown"))
    second.answered(4)
    third.send(("publish", "room", b"more"))
    third.answered(3)
    assert first.expect("envelope") == [b"more"]
    second.send(("ping",))
    second.expect("pong")


def test_what_a_sender_gets_itself_comes_before_its_answer(
    start_hub: StartHub, connect: Connect
) -> None:
    start_hub()
    member = connect("n1")
    member.send(("join", "room"))
    member.answered(1)
    for number in range(2, 20):
        member.send(("publish", "room", b"octets"))
        member.expect("envelope")
        member.answered(number)


def test_a_node_that_is_not_there_is_gone(start_hub: StartHub, connect: Connect) -> None:
    start_hub()
    client = connect("n1")
    client.send(("push_node", "n1", b"octets"), ("push_node", "n2", b"octets"))
    assert client.expect("envelope") == [b"octets"]
    assert client.expect("refused")[:2] == [2, True]


def test_a_queue_is_first_in_first_out_and_refuses_what_is_over_capacity(
    start_hub: StartHub, connect: Connect
) -> None:
    start_hub()
    writer, reader = connect("n1"), connect("n2")
    writer.send(*(push(seq, capacity=3) for seq in range(4)), push(0, capacity=3))
    assert writer.expect("refused")[:2] == [4, False]
    # The fifth was sent before: done, and not stored again.
    writer.answered(5)
    reader.send(demand(2))
    assert [leased(reader)[0] for _ in range(2)] == [0, 1]
    reader.send(demand(5))
    assert leased(reader)[0] == 2


def test_queues_in_groups(start_hub: StartHub, connect: Connect) -> None:
    start_hub()
    client = connect("n1")
    sent = [("publish", "room", envelope(seq, name="room")) for seq in range(3)]
    client.send(("add_queue", "room", "q", in_a_minute()), *sent, sent[0])
    # The queue holds two: `start_hub` says so of all.
    assert client.expect("over_capacity") == ["room", 1, 1]
    client.answered(5)
    client.send(("discard_queue", "room", "q"), sent[2], demand(5))
    client.answered(7)
    assert [leased(client)[0] for _ in range(2)] == [0, 1]


@pytest.mark.parametrize(
    "said",
    [
        ("ping",),
        ("hello", 1, "n1"),
        hello(""),
        b"GET / HTTP/1.1\r\nHost: hub\r\n\r\n",
        b"\xff" * 64,
        ("hello", VERSION, "n1", bytes(2 * LONGEST), False, 1),
    ],
    ids=lambda said: repr(said)[:30],
)
def test_who_is_no_client_is_dropped_and_the_others_stay(
    start_hub: StartHub, connect: Connect, said: Any
) -> None:
    hub = start_hub()
    good, hostile = connect("n0"), connect()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        hostile.send(said)
    assert hostile.is_dropped()
    good.send(("ping",))
    good.expect("pong")
    assert hub.statistics()["hub_dropped_malformed"] == 1


@pytest.mark.parametrize(
    "said",
    [
        ("unheard of",),
        ("welcome", 1, b"", False, 1),
        (["a list"],),
        (),
        hello("n2"),
        ("push", "q", b"\0"),
        ("push", b"q", b"", 1),
        ("demand", "q", 1, 0.5),
        ("demand", "q", 1, float("nan")),
        ("push_later", "q", b"", float("inf"), 5),
        ("release", b"lease", 1, 1),
        ("join", ["room"]),
        b"\x92\xa4join\xa1\xff",
    ],
    ids=repr,
)
def test_a_client_that_talks_nonsense_is_dropped(
    start_hub: StartHub, connect: Connect, said: Any
) -> None:
    start_hub()
    good, bad = connect("n0"), connect("n1")
    bad.send(said)
    assert bad.is_dropped()
    good.send(("push_node", "n1", b"x"))
    assert good.expect("refused")[1]


def test_an_envelope_of_another_version_is_counted_and_its_sender_stays(
    start_hub: StartHub, connect: Connect
) -> None:
    hub = start_hub()
    client = connect("n1")
    future = b"\x63" + envelope(1)[1:]
    client.send(
        ("add_queue", "room", "q", in_a_minute()),
        ("push", "q", future, 2),
        ("push", "q", b"no envelope", 2),
        ("push_later", "q", future, 0, 5),
        ("publish", "room", future),
        push(2),
        demand(5),
    )
    client.answered(6)
    assert leased(client)[0] == 2
    assert hub.statistics()["hub_dropped_malformed"] == 4


def test_another_version_is_told(start_hub: StartHub, connect: Connect) -> None:
    start_hub()
    client = connect()
    client.hello("n1", version=9)
    assert "not 9" in client.expect("turned_away")[0]
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
    connect("n1")
    second = connect("n2")
    third = connect()
    assert "max_peers=2" in third.expect("turned_away")[0]
    second.socket.close()
    until(lambda: hub.statistics()["hub_peers"] == 1, "it has gone")
    connect("n3")


def test_groups_are_bounded(start_hub: StartHub, connect: Connect) -> None:
    start_hub(group_memory=64 * 1024)
    client = connect("n1")
    names = [f"room{number}" for number in range(400)]
    client.send(*(("join", name) for name in names))
    number, _, reason = client.expect("refused")
    assert "group_memory" in reason
    assert 200 < number < 400
    for last in range(number + 1, 401):
        assert client.expect("refused")[0] == last
    client.send(*(("leave", name) for name in names))
    client.answered(800)
    client.send(*(("join", name) for name in names[: number - 1]))
    client.answered(800 + number - 1)


def test_queues_are_bounded_in_octets_and_number(start_hub: StartHub, connect: Connect) -> None:
    start_hub(message_memory=64 * 1024, max_queues=1)
    client = connect("n1")
    client.send(*(push(seq, payload=bytes(30_000)) for seq in range(3)))
    assert client.expect("refused")[:2] == [3, False]
    client.send(("push", "another", envelope(9), 1))
    assert "no room for another" in client.expect("refused")[2]
    client.send(demand(2))
    tokens = [leased(client)[1] for _ in range(2)]
    client.send(push(4, payload=bytes(30_000)))
    client.expect("refused")
    client.send(*(("acknowledge", token) for token in tokens))
    client.answered(7)
    client.send(push(5, payload=bytes(30_000)))
    client.answered(8)


def test_a_peer_that_does_not_read_is_not_waited_for(start_hub: StartHub, connect: Connect) -> None:
    hub = start_hub(peer_buffer=64 * 1024)
    slow, quick, writer = connect("n1"), connect("n2"), connect("n3")
    for member in (slow, quick):
        member.send(("join", "room"))
        member.answered(1)
    for number in range(200):
        writer.send(("publish", "room", bytes(8192)))
        quick.expect("envelope")
        writer.answered(number + 1)
    assert hub.statistics()["hub_dropped_peer_buffer"] > 0
    writer.send(("push_node", "n1", bytes(65536)))
    assert not writer.expect("refused")[1]
    kinds = [slow.read()[0]]
    while kinds[-1] != "gap":
        kinds.append(slow.read()[0])
    assert kinds.count("envelope") < 200


def test_a_new_connection_of_a_node_takes_the_old_ones_place(
    start_hub: StartHub, connect: Connect
) -> None:
    start_hub()
    old = connect("n1")
    new = connect("n1")
    assert old.is_dropped()
    new.send(("push_node", "n1", b"octets"))
    new.expect("envelope")


def test_what_a_dead_reader_was_not_sent_goes_to_another(
    start_hub: StartHub, connect: Connect
) -> None:
    hub = start_hub(peer_buffer=64 * 1024)
    writer, stuck, reader = connect("n1"), connect("n2"), connect("n3")
    stuck.send(("join", "room"), demand(1))
    stuck.answered(1)
    for number in range(100):
        writer.send(("publish", "room", bytes(8192)))
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
    client = connect("n1")
    place.lock.unlink()
    assert client.is_dropped()
    until(lambda: not hub.is_alive, "its end")


def test_a_new_hub_waits_for_those_who_were_there(
    start_hub: StartHub, connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SETTLE_SECONDS", PATIENCE)
    before = Lock.take(place.node("nbefore"))
    assert before is not None
    start_hub()
    new = connect().hello("nnew")
    new.socket.settimeout(0.1)
    with pytest.raises(TimeoutError):
        new.read()
    new.socket.settimeout(PATIENCE)
    connect("nbefore")
    new.welcomed()
    before.release()


def test_a_new_hub_does_not_wait_for_who_dies_meanwhile(
    start_hub: StartHub, connect: Connect, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "SETTLE_SECONDS", 10 * PATIENCE)
    dying = Lock.take(place.node("ndying"))
    assert dying is not None
    start_hub()
    new = connect().hello("nnew")
    dying.release()
    new.welcomed()


def test_the_end_bids_farewell_and_leaves_what_is_unread(
    start_hub: StartHub, connect: Connect
) -> None:
    first = start_hub()
    client = connect("n1")
    client.send(push(1), push(2))
    client.answered(2)
    first.stop(PATIENCE)
    client.expect("goodbye")
    assert client.is_dropped()
    start_hub()
    again = connect("n1")
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
    assert "runs as user" in connect().expect("turned_away")[0]


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
    connect("n1")
    threads = [threading.Thread(target=hub.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not hub.is_alive
