"""What is measured: each case plays on a stage and answers with rows of figures."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.layers.stage import CASE_SECONDS, Process, Stage, hold_still, settle

Row = dict[str, Any]
GROUP = "bench"
KILL_SECONDS = 0.15
DOWN_SECONDS = 0.3
#: Sends to a crowd; a run of fewer leaves the larger crowd out.
WHOLE_CROWD = 50


@dataclass(frozen=True, slots=True)
class Case:
    """One table."""

    name: str
    about: str
    #: (stage, how many messages, is it a layer of ours) -> rows.
    play: Callable[[Stage, int, bool], list[Row]]
    messages: int
    #: What a row of ours must fulfil; and in words.
    holds: Callable[[Row], bool]
    goal: str
    #: Connections are killed.
    kills: bool = False


def lost_doubled_disordered(
    sent: int, failed: Sequence[int], readings: Sequence[Sequence[int]]
) -> Row:
    """Every reader should have what was sent without an error: once, and in order."""
    expected = set(range(sent)) - set(failed)
    lost = sum(len(expected - set(marks)) for marks in readings)
    doubled = sum(len(marks) - len(set(marks)) for marks in readings)
    return {"lost": lost, "doubled": doubled, "disordered": sum(map(disorder, readings))}


def disorder(marks: Sequence[int]) -> int:
    """How many came after one that was sent later; repeats aside."""
    seen: set[int] = set()
    highest, found = -1, 0
    for mark in marks:
        if mark not in seen:
            found += mark < highest
            highest = max(highest, mark)
            seen.add(mark)
    return found


def total(errors: Mapping[str, int]) -> int:
    return sum(errors.values())


def queue(stage: Stage, messages: int, is_ours: bool) -> list[Row]:
    readers = [stage.spawn("read", channel="work") for _ in range(3)]
    writer = stage.spawn("write", channel="work", count=messages, burst=20, pause=0.01)
    stage.begin()
    writer.tell("go")
    writer.wait("sent")
    settle(readers, lambda: sum(reader.gauge.value for reader in readers) >= messages)
    written, *read = [process.finish() for process in (writer, *readers)]
    counts = Counter(mark for result in read for mark in result["marks"])
    expected = set(range(messages)) - set(written["failed"])
    row = {
        "sent": messages,
        "delivered": sum(counts.values()),
        "doubled": sum(count > 1 for count in counts.values()),
        "lost": len(expected - counts.keys()),
        "send errors": total(written["errors"]),
        "receive errors": sum(total(result["errors"]) for result in read),
        "by each": "/".join(str(len(result["marks"])) for result in read),
    }
    return [row]


def send_to_group(stage: Stage, messages: int) -> tuple[Process, list[Process]]:
    """A process that sends, and two that read."""
    readers = [stage.spawn("read", group=GROUP) for _ in range(2)]
    writer = stage.spawn("write", group=GROUP, count=messages, burst=20, pause=0.02)
    stage.begin()
    writer.tell("go")
    return writer, readers


def judge(messages: int, writer: Process, readers: Sequence[Process]) -> tuple[Row, list[Any]]:
    """The figures of a group's case, and what the readers found."""
    settle(readers, lambda: min(reader.gauge.value for reader in readers) >= messages)
    written, *read = [process.finish() for process in (writer, *readers)]
    marks = [result["marks"] for result in read]
    row = {"sends": messages, "readers": len(readers)}
    row |= lost_doubled_disordered(messages, written["failed"], marks)
    row["send errors"] = total(written["errors"])
    row["receive errors"] = sum(total(result["errors"]) for result in read)
    return row, read


def kill(stage: Stage, messages: int, is_ours: bool) -> list[Row]:
    writer, readers = send_to_group(stage, messages)
    kills, deadline = 0, time.monotonic() + CASE_SECONDS
    while not writer.has_said() and time.monotonic() < deadline:
        time.sleep(KILL_SECONDS)
        stage.broker.kill_connections()
        kills += 1
    writer.wait("sent")
    row, _ = judge(messages, writer, readers)
    return [{"kills": kills, **row}]


def until_sent(writer: Process, messages: int) -> None:
    deadline = time.monotonic() + CASE_SECONDS
    while writer.gauge.value < messages and time.monotonic() < deadline:
        time.sleep(0.001)


def restart(stage: Stage, messages: int, is_ours: bool) -> list[Row]:
    return [die_and_return(stage, messages, unread=0)]


def restart_unread(stage: Stage, messages: int, is_ours: bool) -> list[Row]:
    return [die_and_return(stage, messages, unread=messages // 8)]


def die_and_return(stage: Stage, messages: int, unread: int) -> Row:
    """Kill the broker in mid traffic, with about so many messages unread in it for each reader."""
    writer, readers = send_to_group(stage, messages)
    until_sent(writer, messages * 3 // 8)
    if unread:
        for reader in readers:
            reader.signal(signal.SIGSTOP)
        until_sent(writer, writer.gauge.value + unread)
    # Held still it answers no one: what readers lack now is what dies with it.
    stage.broker.pause()
    hold_still([writer, *readers])
    held = sum(max(0, writer.gauge.value - reader.gauge.value) for reader in readers)
    sent, killed = writer.gauge.value, time.monotonic()
    stage.broker.kill()
    for reader in readers:
        reader.signal(signal.SIGCONT)
    time.sleep(DOWN_SECONDS)
    stage.broker.start()
    writer.wait("sent")
    row, read = judge(messages, writer, readers)
    after = [first_after(sent, result) for result in read]
    known = [at for at in after if at is not None]
    row["unread in broker"] = held
    row["silent s"] = round(max(known) - killed, 2) if len(known) == len(after) else "for good"
    return row


def first_after(sent: int, read: Mapping[str, Any]) -> float | None:
    """When a reader got the first message that was sent after these."""
    arrivals = zip(read["marks"], read["times"], strict=True)
    return next((at for mark, at in arrivals if mark > sent), None)


def sync(stage: Stage, messages: int, is_ours: bool) -> list[Row]:
    return [call(stage, messages, facade) for facade in ((False, True) if is_ours else (False,))]


def call(stage: Stage, messages: int, facade: bool) -> Row:
    threads = 5
    messages -= messages % threads
    reader = stage.spawn("read", group=GROUP)
    caller = stage.spawn("call", group=GROUP, count=messages, threads=threads, facade=facade)
    for process in (reader, caller):
        process.wait("ready")
    before = stage.broker.meter()
    caller.tell("go")
    caller.wait("sent")
    after = stage.broker.meter()
    settle([reader], lambda: reader.gauge.value >= messages)
    called, read = caller.finish(), reader.finish()
    row = {
        "called": "layer.sync.group_send" if facade else "async_to_sync(group_send)",
        "calls": messages,
        "sockets": after.connections - before.connections if before and after else "",
        "mean ms": round(called["mean_ms"], 2),
        "p50 ms": round(called["p50_ms"], 2),
        "CPU ms": round(called["cpu_ms"], 2),
        "empty call ms": round(called["empty_ms"], 2),
        "errors": total(called["errors"]),
        "lost": messages - len(called["failed"]) - len(set(read["marks"])),
    }
    return row


def crowd(stage: Stage, messages: int, is_ours: bool) -> list[Row]:
    rows = [fan_out(stage, messages, 1000)]
    if is_ours and messages >= WHOLE_CROWD:
        rows.append(fan_out(stage, messages // 5, 10_000))
    return rows


def fan_out(stage: Stage, messages: int, members: int) -> Row:
    process = stage.spawn("fan_out", group=GROUP, count=messages, members=members)
    process.wait("ready")
    before = stage.broker.meter()
    process.tell("go")
    process.wait("sent")
    after = stage.broker.meter()
    result = process.finish()
    row = {
        "sends": messages,
        "members": members,
        "CPU us/member": round(result["cpu_us"], 1),
        "of it collecting": round(result["collecting_us"], 1),
        "bare us": round(result["bare_us"], 1),
        "ms/send": round(result["ms"], 1),
        "bytes/send": "",
        "commands/send": "",
        "messages/send": "",
        "lost": result["lost"],
    }
    if before and after:
        row["bytes/send"] = round((after.bytes - before.bytes) / messages)
        row["commands/send"] = round((after.commands - before.commands) / messages, 1)
        row["messages/send"] = round((after.messages - before.messages) / messages, 2)
    return row


def roundtrip(stage: Stage, messages: int, is_ours: bool) -> list[Row]:
    """To a channel of another process, and to one that any process may read."""
    return [
        trips(stage, messages, by_queue) for by_queue in ((False, True) if is_ours else (False,))
    ]


def trips(stage: Stage, samples: int, by_queue: bool) -> Row:
    names = ("there", "back") if by_queue else (None, None)
    both = {"port": stage.broker.port, "line": str(by_queue)}
    echo = stage.spawn("echo", channel=names[0], **both)
    there = echo.wait("ready")
    process = stage.spawn("there_and_back", channel=names[1], count=samples, **both)
    process.wait("ready")
    process.tell(there)
    process.wait("sent")
    found = process.finish()
    return {
        "channel": "any process's" if by_queue else "another process's",
        "samples": samples,
        "floor us": round(found["floor_us"]),
        "raw us": round(found["raw_us"]),
        "layer us": round(found["layer_us"]),
        "to floor": round(found["layer_us"] / found["floor_us"], 2),
        "ratio": round(found["layer_us"] / found["raw_us"], 2),
    }


CASES = [
    Case(
        "queue",
        "three worker processes on one channel, nothing failing",
        queue,
        2000,
        lambda row: row["doubled"] == row["lost"] == 0,
        "each message once",
    ),
    Case(
        "kill",
        "group sends while all connections are killed every 150 ms",
        kill,
        6000,
        lambda row: row["lost"] == row["doubled"] == row["disordered"] == 0,
        "none lost, none doubled, in order",
        kills=True,
    ),
    Case(
        "restart",
        "group sends while the broker is killed and, after 0.3 s, started again",
        restart,
        4000,
        lambda row: row["lost"] <= row["unread in broker"] and row["doubled"] == 0,
        "no more lost than the broker held unread",
    ),
    Case(
        "restart-unread",
        "the same, while readers do not read",
        restart_unread,
        4000,
        lambda row: row["lost"] <= row["unread in broker"] > 0 and row["doubled"] == 0,
        "no more lost than the broker held unread, and it held some",
    ),
    Case(
        "sync",
        "group sends from plain threads, without a loop of their own",
        sync,
        500,
        lambda row: row["sockets"] in ("", 0, 1, 2, 3) and row["mean ms"] < 1.0,
        "at most 3 sockets, under 1 ms a call",
    ),
    Case(
        "crowd",
        "group sends to the members in one process, each awaiting receive() in a task",
        crowd,
        WHOLE_CROWD,
        lambda row: (
            row["CPU us/member"] <= 20.0 and row["lost"] == 0 and row["messages/send"] in ("", 1.0)
        ),
        "at most 20 us a member, one message through the broker",
    ),
    Case(
        "roundtrip",
        "a message there and back between two processes, beside PUBLISH and SUBSCRIBE",
        roundtrip,
        400,
        lambda row: row["ratio"] <= 1.5,
        "at most 1.5 times the raw round trip",
    ),
]
