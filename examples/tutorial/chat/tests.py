from channels.testing import ChannelsLiveServerTestCase
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

# The first two suit machines without a screen and containers that run everything as root.
CHROME_FLAGS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


class ChatTests(ChannelsLiveServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        options = webdriver.ChromeOptions()
        for flag in CHROME_FLAGS:
            options.add_argument(flag)
        cls.browser = webdriver.Chrome(options=options)
        cls.addClassCleanup(cls.browser.quit)

    def test_a_message_is_seen_by_every_window_of_its_room(self):
        first = self.enter("lobby")
        second = self.enter("lobby")
        self.post(first, "hello")
        self.wait_for(first, "hello")
        self.wait_for(second, "hello")

    def test_a_message_is_not_seen_in_another_room(self):
        lobby = self.enter("lobby")
        kitchen = self.enter("kitchen")
        self.post(lobby, "hello")
        self.wait_for(lobby, "hello")
        # What is posted later arrives later: "hello" would be there by now.
        self.post(kitchen, "anyone here?")
        self.wait_for(kitchen, "anyone here?")
        self.assertNotIn("hello", self.log(kitchen))

    def enter(self, room):
        """Open a new window, enter a room by the index page's form and return the window."""
        self.browser.switch_to.new_window("window")
        self.browser.get(f"{self.live_server_url}/chat/")
        self.browser.find_element(By.NAME, "room").send_keys(room, Keys.ENTER)
        self.wait(lambda browser: browser.current_url.endswith(f"/chat/{room}/"))
        self.wait(lambda browser: browser.execute_script("return socket.readyState") == 1)
        return self.browser.current_window_handle

    def post(self, window, text):
        self.browser.switch_to.window(window)
        self.browser.find_element(By.NAME, "message").send_keys(text, Keys.ENTER)

    def log(self, window):
        self.browser.switch_to.window(window)
        return self.browser.find_element(By.ID, "log").text

    def wait_for(self, window, text):
        self.wait(lambda browser: text in self.log(window), f"{text!r} did not arrive")

    def wait(self, condition, message=""):
        WebDriverWait(self.browser, 10).until(condition, message)
