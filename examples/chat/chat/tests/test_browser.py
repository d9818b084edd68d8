from channels.testing import ChannelsLiveServerTestCase
from django.contrib.auth import get_user_model
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from chat.models import Message, Room
from chat.tests.browser import Window, open_browser


class InTheBrowser(ChannelsLiveServerTestCase):
    serve_static = True

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.browser = open_browser()
        cls.addClassCleanup(cls.browser.quit)

    def setUp(self):
        self.first = self.browser.current_window_handle
        for name in ("lobby", "kitchen"):
            Room.objects.get_or_create(label=name, defaults={"name": name.title()})

    def tearDown(self):
        for name in self.browser.window_handles:
            if name != self.first:
                self.browser.switch_to.window(name)
                self.browser.close()
        self.browser.switch_to.window(self.first)
        self.browser.delete_all_cookies()

    def enter(self, label, handle=None):
        return Window(self.browser, self.live_server_url, label, handle)

    def test_every_window_of_a_room_shows_a_message(self):
        ada, ben = self.enter("lobby", "Ada"), self.enter("lobby", "Ben")
        ada.post("hello")
        for window in (ada, ben):
            window.wait_for("hello")
        self.assertEqual(Message.objects.get().handle, "Ada")

    def test_no_window_of_another_room_does(self):
        lobby, kitchen = self.enter("lobby"), self.enter("kitchen")
        lobby.post("hello")
        lobby.wait_for("hello")
        kitchen.post("anyone?")
        kitchen.wait_for("anyone?")
        self.assertEqual(kitchen.texts, ["anyone?"])

    def test_the_history_is_there_after_a_reload(self):
        window = self.enter("lobby")
        for text in ("one", "two", "three"):
            window.post(text)
            window.wait_for(text)
        window.reload()
        self.assertEqual(window.texts, ["one", "two", "three"])

    def test_markup_stays_text_and_the_policy_is_kept(self):
        markup = "<img src=x onerror=alert(1)><b>bold</b>"
        window = self.enter("lobby")
        window.post(markup)
        window.wait_for(markup)
        self.assertEqual(window.browser.find_elements(By.CSS_SELECTOR, ".text img, .text b"), [])
        window.reload()
        self.assertEqual(window.texts, [markup])
        complaints = [
            entry["message"]
            for entry in self.browser.get_log("browser")
            if entry["level"] == "SEVERE"
        ]
        self.assertEqual(complaints, [])

    def test_a_burst_is_slowed_down_and_none_of_it_lost(self):
        window = self.enter("lobby")
        texts = [f"number {n}" for n in range(11)]
        for text in texts:
            window.post(text)
        window.wait_for(texts[-1])
        self.assertEqual(window.texts, texts)

    def test_a_guest_who_takes_a_members_name_is_told(self):
        get_user_model().objects.create_user("ada")
        window = self.enter("lobby", "Ada")
        window.post("it is me")
        window.wait(lambda: "member's name" in window.error)
        self.assertEqual(window.texts, [])
        self.assertIn(
            "Not sent", window.browser.find_element(By.CSS_SELECTOR, ".failed .note").text
        )

    def test_signing_in_and_out(self):
        get_user_model().objects.create_user("ada", password="a long walk by the sea")
        window = self.enter("lobby")
        self.browser.find_element(By.LINK_TEXT, "Sign in").click()
        window.wait(lambda: self.browser.find_elements(By.NAME, "username"))
        self.browser.find_element(By.NAME, "username").send_keys("ada")
        self.browser.find_element(By.NAME, "password").send_keys(
            "a long walk by the sea", Keys.ENTER
        )
        window.wait(lambda: self.browser.current_url.endswith("/rooms/lobby/"))
        window.wait_for_state("open")
        window.post("signed")
        window.wait_for("signed")
        self.assertEqual(Message.objects.get().handle, "ada")
        other = self.enter("kitchen")
        other.switch().find_element(By.XPATH, "//button[text()='Sign out']").click()
        window.wait_for_state("closed")
        self.assertIn("signed out", window.error)

    def test_a_room_is_made_and_entered_by_keyboard(self):
        self.browser.get(self.live_server_url)
        self.browser.find_element(By.NAME, "name").send_keys("Night shift", Keys.ENTER)
        window = Window(self.browser, self.live_server_url, "night-shift")
        self.assertEqual(
            self.browser.switch_to.active_element, self.browser.find_element(By.ID, "text")
        )
        window.post("hello")
        window.wait_for("hello")
