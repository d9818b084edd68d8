"""Install packages that build on Channels beside this checkout, and use each over real sockets.

    python compliance/packages/run.py [CASE ...] [--folder DIR]

Each case gets a virtual environment of its own (kept in --folder, so that a second run is quick),
a site, our server in one process and a client in another, our LocalChannelLayer between them.
Exit status 0 if all is well.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = ROOT / "compliance" / "packages" / "cases"
#: Seconds for a server to listen, and for a client to be done.
PATIENCE = 90.0

#: What pip must not lay over this checkout's files: no such releases exist, so it fails instead.
CONSTRAINTS = "daphne==0.0.0\nchannels-redis==0.0.0\n"


class Failed(Exception):
    """A step of a case went wrong; its text says what was written."""


def names() -> list[str]:
    return sorted(path.stem for path in CASES.glob("[!_]*.py"))


def check(words: Sequence[str], environment: Mapping[str, str], timeout: float = 600.0) -> str:
    """Run a program that must end well; what it wrote."""
    done = subprocess.run(
        words,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(done.stdout)
    return done.stdout


def install(case: str, folder: Path) -> str:
    """A Python that has the case's packages and this checkout."""
    home = folder / "venvs" / case
    python = str(home / "bin" / "python")
    requirements = import_module(f"compliance.packages.cases.{case}").REQUIREMENTS
    stamp = home / "installed"
    if not stamp.exists() or stamp.read_text() != repr(requirements):
        check([sys.executable, "-m", "venv", "--clear", str(home)], os.environ)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
        constraints = folder / "constraints.txt"
        constraints.write_text(CONSTRAINTS)
        check([*pip, "-e", str(ROOT)], os.environ)
        check([*pip, "-c", str(constraints), *requirements], os.environ)
        stamp.write_text(repr(requirements))
    where = "import channels, sys; sys.exit(channels.__file__)"
    found = subprocess.run([python, "-c", where], capture_output=True, text=True, check=False)
    if str(ROOT / "src") not in found.stderr:
        raise Failed(f"another channels lies over this checkout: {found.stderr}")
    return python


@contextmanager
def serving(python: str, environment: Mapping[str, str]) -> Iterator[tuple[int, list[str]]]:
    """The port of the case's server, and what it writes."""
    words = ["-m", "channels", "serve", "--port", "0", "compliance.packages.asgi:application"]
    process = subprocess.Popen(
        [python, *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        yield wait_for_port(process, lines), lines
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise Failed("the server did not stop") from None
        reader.join(PATIENCE)
        process.stdout.close()


def wait_for_port(process: subprocess.Popen[str], lines: list[str]) -> int:
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        if found := re.search(r"Listening on \D*[\d.]+:(\d+)", "".join(lines)):
            return int(found[1])
        time.sleep(0.05)
    raise Failed("".join(lines))


def run(case: str, python: str) -> None:
    """Serve the case and use it.

    Raises:
        Failed: With what client and server wrote.
    """
    with tempfile.TemporaryDirectory(prefix="package-") as folder:
        environment = {
            **{name: value for name, value in os.environ.items() if "DJANGO" not in name},
            "PACKAGE_CASE": case,
            "PACKAGE_FOLDER": folder,
            "DJANGO_SETTINGS_MODULE": "compliance.packages.site",
            "PYTHONUNBUFFERED": "1",
        }
        check([python, "-m", "django", "migrate", "--run-syncdb", "-v", "0"], environment)
        lines: list[str] = []
        try:
            with serving(python, environment) as (port, lines):
                client = [python, "-m", "compliance.packages.client", case, str(port)]
                check(client, environment, PATIENCE)
        except Failed as error:
            raise Failed(f"{error}\n--- server ---\n{''.join(lines)}") from None
        if "Traceback" in (written := "".join(lines)):
            raise Failed(f"the server logged an error\n{written}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all of them")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "packages")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(ROOT))
    failed = 0
    for case in options.cases or names():
        try:
            run(case, install(case, options.folder))
        except (Failed, subprocess.TimeoutExpired) as error:
            failed += 1
            print(f"{case}: FAILED\n{error}", flush=True)
        else:
            print(f"{case}: works", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
