"""A site in a temporary folder, served by `channels serve` in a process that is watched."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Site:
    """A running site."""

    port: int
    pid: int
    #: What it writes: standard output and error in one.
    log: Path

    def peak_bytes(self) -> int:
        """The most memory that it had since `forget_peak`."""
        return self._bytes("VmHWM:")

    def resident_bytes(self) -> int:
        return self._bytes("VmRSS:")

    def _bytes(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(name)[2].split()[0]) * 1024

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def forget_peak(self) -> None:
        """Let the peak be what it has now."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100


@contextlib.contextmanager
def serving(source: str, *options: str) -> Iterator[Site]:
    """Serve the module `probe`, made of this source, whose application has that name."""
    with tempfile.TemporaryDirectory(prefix="site-") as folder:
        (Path(folder) / "probe.py").write_text(source)
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "channels", "serve", "--port", "0", *options),
                    "probe:application",
                ],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Site(_port(process, log), process.pid, log)
        finally:
            process.terminate()
            try:
                process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"Listening on \D*[\d.]+:(\d+)", log.read_text()):
            return int(found[1])
        time.sleep(0.05)
    raise RuntimeError(f"The site did not start:\n{log.read_text()}")
