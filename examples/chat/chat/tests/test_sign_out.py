"""A sign-out in one window closes the chat in the others, whichever process serves them."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.request import urlopen

from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection
from django.test import TransactionTestCase
from selenium.webdriver.common.by import By

from chat.models import Room
from chat.tests import quick_passwords
from chat.tests.browser import PATIENCE, Window, Windows, open_browser

PROJECT = Path(__file__).resolve().parents[2]
MOST_WINDOWS = 10


@quick_passwords
class SignOut(TransactionTestCase):
    def setUp(self):
        Room.objects.get_or_create(label="lobby", defaults={"name": "Lobby"})
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "channels", "serve", "--workers", "2"]
        self.server = subprocess.Popen(
            [*command, "--port", str(port), "chat.tests.noted:application"],
            cwd=PROJECT,
            env=os.environ
            | {
                "CHAT_DATABASE": str(connection.settings_dict["NAME"]),
                "CHAT_NOTES": str(self.folder / "notes"),
                "CHANNEL_LAYER": "channels.layers.LocalChannelLayer",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(self.stop)
        self.windows = Windows(open_browser(), f"http://127.0.0.1:{port}")
        self.addCleanup(self.windows.leave)
        self.wait_until_it_answers()

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

    def test_the_windows_of_both_processes_close(self):
        user = get_user_model().objects.create_user("ada", password="sea walk")
        self.client.force_login(user)
        key = self.client.cookies["sessionid"].value
        browser = self.windows.browser
        self.windows.switch_to_unused()
        browser.get(f"{self.windows.site}/accounts/login/")
        browser.add_cookie({"name": "sessionid", "value": key})
        opened, processes = [], set()
        while len(processes) < 2 and len(opened) < MOST_WINDOWS:
            opened.append(Window(self.windows, "lobby"))
            processes = {*(self.folder / "notes").read_text().split()}
        self.assertEqual(len(processes), 2, "one process serves all windows")
        opened.append(Window(self.windows, "lobby"))
        opened[-1].switch().find_element(By.XPATH, "//button[text()='Sign out']").click()
        for window in opened[:-1]:
            window.wait_for_state("closed")
            self.assertIn("signed out", window.error)
        self.assertFalse(SessionStore(key).exists(key))
