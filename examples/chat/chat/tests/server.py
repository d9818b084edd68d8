"""A server of a process of its own, for the tests that stop it or run several workers."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from django.db import connection

from chat.tests.browser import PATIENCE

PROJECT = Path(__file__).resolve().parents[2]


class Server:
    """Serves the test's database on a free port; every start takes the same one.

    `words` follow `python` on the command line, with {port} in the place of the port.
    """

    def __init__(self, *words, **environment):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.site = f"http://127.0.0.1:{port}"
        self._command = [sys.executable, *(word.format(port=port) for word in words)]
        self._environment = environment

    def start(self):
        self._process = subprocess.Popen(
            self._command,
            cwd=PROJECT,
            env=os.environ
            | {"CHAT_DATABASE": str(connection.settings_dict["NAME"]), **self._environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_until_it_answers(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urlopen(self.site, timeout=5).close()
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self):
        self._process.terminate()
        self._process.wait(timeout=PATIENCE)
