"""The server restarts, as in a deployment; the browser stays open."""

from django.test import TransactionTestCase

from chat.models import Message, Room
from chat.tests.browser import Window, Windows, open_browser
from chat.tests.server import Server


class Restart(TransactionTestCase):
    def setUp(self):
        self.lobby, _ = Room.objects.get_or_create(label="lobby", defaults={"name": "Lobby"})
        self.server = Server("manage.py", "runserver", "--noreload", "127.0.0.1:{port}")
        self.server.start()
        self.addCleanup(self.server.stop)
        self.windows = Windows(open_browser(), self.server.site)
        self.addCleanup(self.windows.leave)
        self.server.wait_until_it_answers()

    def test_nothing_is_lost_over_a_restart_nor_stays_that_was_deleted(self):
        ada, ben = (Window(self.windows, "lobby") for _ in range(2))
        for text in ("before", "deleted meanwhile"):
            ada.post(text)
            ben.wait_for(text)

        self.server.stop()
        for window in (ada, ben):
            window.wait(lambda window=window: window.state in {"waiting", "connecting"})
        ada.post("typed while the server was away")
        Message.objects.create(room=self.lobby, handle="Cho", text="said meanwhile")
        Message.objects.get(text="deleted meanwhile").delete()

        self.server.start()
        for window in (ada, ben):
            window.wait_for_state("open")
            window.wait_for("typed while the server was away")
            self.assertEqual(
                window.texts, ["before", "said meanwhile", "typed while the server was away"]
            )
        ben.post("after")
        ada.wait_for("after")
