"""Signals and the end of a process, as a program meets them that is no server.

What a server does with them is in `tests/server/test_stopping.py`.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.processes import Child

PROGRAM = """\
import atexit, os, signal, sys, threading, time
from channels.kit.process_exit import process_exit

class Target:
    def __init__(self):
        self.asked = threading.Event()

    def request_stop(self):
        print("asked", flush=True)
        self.asked.set()

    def hurry(self):
        print("hurried", flush=True)

def hang():
    print("hanging", flush=True)
    time.sleep(600)

target = Target()
"""


def program(folder: Path, source: str) -> Child:
    (folder / "program.py").write_text(PROGRAM + source)
    return Child("program.py", cwd=folder)


def test_outside_of_a_command_the_process_goes_on(tmp_path: Path) -> None:
    source = """
with process_exit.serving(target, 1.5):
    os.kill(os.getpid(), signal.SIGTERM)
    target.asked.wait()
time.sleep(1)
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print("went on", flush=True)
"""
    with program(tmp_path, source) as child:
        assert child.wait() == 0
    assert child.output == "asked\nwent on\n"


def test_a_function_of_atexit_that_hangs_is_left(tmp_path: Path) -> None:
    source = """
def command():
    atexit.register(hang)
    return 3

sys.exit(process_exit.run(command, 0.1))
"""
    with program(tmp_path, source) as child:
        assert child.wait() == 3
    assert "hanging" in child.output
    assert "still running: functions of atexit." in child.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_after_the_command_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    source = """
def command():
    threading.Thread(target=hang).start()
    return 3

sys.exit(process_exit.run(command, 600))
"""
    with program(tmp_path, source) as child:
        child.wait_for("hanging")
        # Until Python's own exit has begun, which waits for the thread.
        child.process.send_signal(number)
        assert child.wait() == 3
    assert "still running: thread 'Thread-" in child.output
    assert "in hang." in child.output


def test_a_program_that_swallows_the_first_ends_at_the_second(tmp_path: Path) -> None:
    source = """
def command():
    while True:
        try:
            print("sleeping", flush=True)
            time.sleep(600)
        except SystemExit:
            pass

process_exit.run(command)
"""
    with program(tmp_path, source) as child:
        for times in (1, 2):
            child.wait_for("sleeping", times)
            child.process.send_signal(signal.SIGTERM)
        assert child.wait() == 0


def test_a_forked_child_has_the_handlers_of_a_program(tmp_path: Path) -> None:
    source = """
with process_exit.serving(target, None):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"x")
        time.sleep(600)
    os.read(reader, 1)
    os.kill(child, signal.SIGTERM)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), target.asked.is_set(), flush=True)
"""
    with program(tmp_path, source) as child:
        assert child.wait() == 0
    assert child.output == f"{signal.SIGTERM:d} False\n"


def test_an_output_that_takes_nothing_does_not_change_the_status(tmp_path: Path) -> None:
    source = """
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
sys.exit(process_exit.run(lambda: print("lost", end="")))
"""
    (tmp_path / "program.py").write_text(PROGRAM + source)
    with Child("program.py", cwd=tmp_path, env={"PYTHONUNBUFFERED": ""}) as child:
        assert child.wait() == 0
    assert child.output == ""


def test_handlers_of_a_command_that_takes_signals_itself_are_left_alone(tmp_path: Path) -> None:
    source = """
def command():
    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    os.kill(os.getpid(), signal.SIGTERM)
    asked.wait()
    time.sleep(2.5)
    print("went on", flush=True)
    return 3

sys.exit(process_exit.run(command))
"""
    with program(tmp_path, source) as child:
        assert child.wait() == 3
    assert child.output == "went on\n"


def test_a_handler_that_the_application_installed_gives_way_to_the_server(tmp_path: Path) -> None:
    source = """
def command():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with process_exit.serving(target, 600):
        os.kill(os.getpid(), signal.SIGTERM)
        target.asked.wait()

process_exit.run(command)
"""
    with program(tmp_path, source) as child:
        assert child.wait() == 0
    assert child.output == "asked\n"
