"""The server restarts, as in a deployment; the browser stays open."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

from django.db import connection
from django.test import TransactionTestCase

from chat.models import Message, Room
from chat.tests.browser import PATIENCE, Window, Windows, open_browser

PROJECT = Path(__file__).resolve().parents[2]


class Restart(TransactionTestCase):
    def setUp(self):
        self.lobby, _ = Room.objects.get_or_create(label="lobby", defaults={"name": "Lobby"})
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()
        self.addCleanup(self.stop)
        self.windows = Windows(open_browser(), f"http://127.0.0.1:{self.port}")
        self.addCleanup(self.windows.leave)
        self.wait_until_it_answers()

    def start(self):
        self.server = subprocess.Popen(
            [sys.executable, "manage.py", "runserver", "--noreload", f"127.0.0.1:{self.port}"],
            cwd=PROJECT,
            env=os.environ | {"CHAT_DATABASE": str(connection.settings_dict["NAME"])},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def wait_until_it_answers(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urlopen(self.windows.site, timeout=5).close()
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
        ada, ben = (Window(self.windows, "lobby") for _ in range(2))
        for text in ("before", "deleted meanwhile"):
            ada.post(text)
            ben.wait_for(text)

        self.stop()
        for window in (ada, ben):
            window.wait(lambda window=window: window.state in {"waiting", "connecting"})
        ada.post("typed while the server was away")
        Message.objects.create(room=self.lobby, handle="Cho", text="said meanwhile")
        Message.objects.get(text="deleted meanwhile").delete()

        self.start()
        for window in (ada, ben):
            window.wait_for_state("open")
            window.wait_for("typed while the server was away")
            self.assertEqual(
                window.texts, ["before", "said meanwhile", "typed while the server was away"]
            )
        ben.post("after")
        ada.wait_for("after")
