"""The server goes away and comes back, as in a deploy; the browser stays."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import TestCase
from urllib.request import urlopen

from chat.tests.browser import PATIENCE, Window, open_browser

PROJECT = Path(__file__).resolve().parents[2]


class Restart(TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.environment = os.environ | {"CHAT_DATABASE": f"{folder.name}/chat.sqlite3"}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.manage("migrate", "--verbosity", "0")
        self.start()
        self.browser = open_browser()
        self.addCleanup(self.browser.quit)

    def manage(self, *arguments):
        subprocess.run(
            [sys.executable, "manage.py", *arguments],
            cwd=PROJECT,
            env=self.environment,
            check=True,
            timeout=60,
        )

    def start(self):
        self.server = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{self.port}"],
            cwd=PROJECT,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(self.stop)
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urlopen(f"http://127.0.0.1:{self.port}/", timeout=5).close()
            except OSError:
                if time.monotonic() > deadline or self.server.poll() is not None:
                    raise
                time.sleep(0.05)
            else:
                return

    def stop(self):
        self.server.terminate()
        self.server.wait(timeout=PATIENCE)

    def test_nothing_is_lost_over_a_restart_nor_stays_that_was_deleted(self):
        site = f"http://127.0.0.1:{self.port}"
        ada, ben = (Window(self.browser, site, "lobby", name) for name in ("Ada", "Ben"))
        for text in ("before", "deleted meanwhile"):
            ada.post(text)
            ben.wait_for(text)

        self.stop()
        for window in (ada, ben):
            window.wait(lambda window=window: window.state in {"waiting", "connecting"})
        ada.post("typed while the server was away")
        self.manage(
            "shell",
            "--verbosity",
            "0",
            "--command",
            "from chat.models import Message, Room\n"
            "lobby = Room.objects.get(label='lobby')\n"
            "Message.objects.create(room=lobby, handle='Cho', text='said meanwhile')\n"
            "Message.objects.get(text='deleted meanwhile').delete()",
        )

        self.start()
        for window in (ada, ben):
            window.wait_for_state("open")
            window.wait_for("typed while the server was away")
            self.assertEqual(
                window.texts, ["before", "said meanwhile", "typed while the server was away"]
            )
        ben.post("after")
        ada.wait_for("after")
