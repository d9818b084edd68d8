"""systemd's part: starts, watches and stops the processes of a template unit as the unit says.

Understood are the keys that the page uses; any other key of [Service] is an error, so that the unit
is never tested without a part of it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

#: systemd's DefaultTimeoutStartSec.
START_SECONDS = 90.0
#: Of no effect here: rights and limits that only a machine's administrator gives.
_IGNORED = {"User", "LimitNOFILE", "RuntimeDirectoryMode", "Restart"}
_KNOWN = {
    *("Type", "WorkingDirectory", "Environment", "RuntimeDirectory", "ExecStart"),
    "TimeoutStopSec",
}


class UnitFailed(Exception):
    """A process did not start or stop as its unit says."""


def parse(text: str, instance: str) -> dict[str, str]:
    """The [Service] section of a unit, `%i` filled in.

    Raises:
        UnitFailed: If it has a key that is not understood here.
    """
    lines = text.replace("\\\n", " ").splitlines()
    found: dict[str, str] = {}
    section = ""
    for line in (line.strip() for line in lines):
        if line.startswith("["):
            section = line
        elif section == "[Service]" and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key] = value.replace("%i", instance)
    if unknown := found.keys() - _KNOWN - _IGNORED:
        raise UnitFailed(f"Keys that nobody plays here: {sorted(unknown)}.")
    return found


class Service:
    """One process of the unit, its log in `folder`/NAME.log."""

    def __init__(self, text: str, instance: str, folder: Path) -> None:
        self.name = f"mysite@{instance}"
        self.unit = parse(text, instance)
        self.log = folder / f"{self.name}.log"
        self._run = folder / "run"
        self._notify_path = folder / f"{self.name}.notify"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it; with Type=notify return when it says that it is ready.

        Raises:
            UnitFailed: If it ends first, or says nothing for 90 seconds.
        """
        unit = self.unit
        (self._run / unit["RuntimeDirectory"]).mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if "DJANGO" not in name}
        name, _, value = unit["Environment"].partition("=")
        environment[name] = value
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            self._notify_path.unlink(missing_ok=True)
            notify.bind(str(self._notify_path))
            notify.settimeout(0.05)
            if unit["Type"] == "notify":
                environment["NOTIFY_SOCKET"] = str(self._notify_path)
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    shlex.split(unit["ExecStart"]),
                    cwd=unit["WorkingDirectory"],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            if unit["Type"] == "notify":
                self._await_ready(notify, self._process)

    def _await_ready(self, notify: socket.socket, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if b"READY=1" in notify.recv(4096).split(b"\n"):
                    return
            except TimeoutError:
                continue
        status = process.poll()
        self.kill()
        raise UnitFailed(f"{self.name} was not ready (status {status}):\n{self.log.read_text()}")

    def stop(self) -> float:
        """SIGTERM; the seconds that it took.  Its RuntimeDirectory goes with it.

        Raises:
            UnitFailed: If it had to be killed, or ended with another status than 0.
        """
        process = self._process
        if process is None:
            return 0.0
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(float(self.unit["TimeoutStopSec"]))
        except subprocess.TimeoutExpired:
            self.kill()
            raise UnitFailed(f"{self.name} did not stop in its time.") from None
        self._process = None
        shutil.rmtree(self._run / self.unit["RuntimeDirectory"], ignore_errors=True)
        if status != 0:
            raise UnitFailed(f"{self.name} ended with {status}:\n{self.log.read_text()}")
        return time.monotonic() - began

    def restart(self) -> float:
        """`systemctl restart`: the seconds that it took to stop."""
        seconds = self.stop()
        self.start()
        return seconds

    def kill(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
