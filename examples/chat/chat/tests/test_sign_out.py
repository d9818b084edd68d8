"""A sign-out in one window closes the chat in the others, whichever process serves them."""

import tempfile
from pathlib import Path

from django.contrib.auth import get_user_model
from django.contrib.sessions.backends.db import SessionStore
from django.test import TransactionTestCase
from selenium.webdriver.common.by import By

from chat.models import Room
from chat.tests import quick_passwords
from chat.tests.browser import Window, Windows, open_browser
from chat.tests.server import Server

MOST_WINDOWS = 10


@quick_passwords
class SignOut(TransactionTestCase):
    def setUp(self):
        Room.objects.get_or_create(label="lobby", defaults={"name": "Lobby"})
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        server = Server(
            *("-m", "channels", "serve", "--workers", "2", "--port", "{port}"),
            "chat.tests.noted:application",
            CHAT_NOTES=str(self.folder / "notes"),
            CHANNEL_LAYER="channels.layers.LocalChannelLayer",
        )
        server.start()
        self.addCleanup(server.stop)
        self.windows = Windows(open_browser(), server.site)
        self.addCleanup(self.windows.leave)
        server.wait_until_it_answers()

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
