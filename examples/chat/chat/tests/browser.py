"""Windows of a real browser."""

import atexit
import shutil
from functools import cache

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

#: No screen, no sandbox (root in a container has none), no downloads in the background.
FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 20


@cache
def open_browser():
    """The browser, which all tests share: it takes as long to start as ten pages."""
    options = webdriver.ChromeOptions()
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # An installed driver is used as it is; without one, Selenium looks for it.
    browser = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    atexit.register(browser.quit)
    return browser


class Windows:
    """A browser's windows, used again by each test: opening one takes as long as three pages."""

    def __init__(self, browser, site):
        self.browser = browser
        self.site = site
        self._unused = browser.window_handles

    def switch_to_unused(self):
        if self._unused:
            self.browser.switch_to.window(self._unused.pop(0))
        else:
            self.browser.switch_to.new_window("window")

    def leave(self):
        """Close the pages and their sockets; delete the cookies."""
        for name in self.browser.window_handles:
            if name not in self._unused:
                self.browser.switch_to.window(name)
                # A page of this site: for another site the browser starts another process.
                self.browser.get(f"{self.site}/accounts/login/")
        self.browser.execute_cdp_cmd("Network.clearBrowserCookies", {})


class Window:
    """A window that shows a room."""

    def __init__(self, windows, label, handle=None):
        windows.switch_to_unused()
        self.browser = browser = windows.browser
        self.name = browser.current_window_handle
        browser.get(f"{windows.site}/rooms/{label}/")
        self.wait_for_state("open")
        # Records whether the connection was ever lost.
        browser.execute_script(
            """
            new MutationObserver(() => {
              if (document.body.dataset.line !== "open") document.body.dataset.wasLost = "yes";
            }).observe(document.body, { attributeFilter: ["data-line"] });
            """
        )
        if handle:
            self.name_as(handle)

    def switch(self):
        self.browser.switch_to.window(self.name)
        return self.browser

    def find(self, selector):
        return self.switch().find_element(By.CSS_SELECTOR, selector)

    def find_all(self, selector):
        return self.switch().find_elements(By.CSS_SELECTOR, selector)

    def name_as(self, handle):
        """Type a guest's name and leave its field."""
        field = self.find("#handle")
        field.clear()
        field.send_keys(handle)
        self.find("#text").click()

    def hide(self, is_hidden):
        """Make the page believe that its window is hidden, or shown again."""
        self.switch().execute_script(
            """
            Object.defineProperty(document, "hidden", { value: arguments[0], configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
            """,
            is_hidden,
        )

    def post(self, text):
        self.switch().find_element(By.ID, "text").send_keys(text, Keys.ENTER)

    def post_at_once(self, texts):
        """Post all texts in one turn of the page's event loop."""
        self.switch().execute_script(
            """
            const text = document.getElementById("text");
            for (const said of arguments[0]) {
              text.value = said;
              document.getElementById("composer").requestSubmit();
            }
            """,
            texts,
        )

    def reload(self):
        self.switch().refresh()
        self.wait_for_state("open")

    @property
    def texts(self):
        """The texts of the stored messages, in the order shown."""
        return self.switch().execute_script(
            "return [...document.querySelectorAll('.message[data-id] .text')]"
            ".map((element) => element.textContent)"
        )

    @property
    def news(self):
        """The lines of the live region, which screen readers announce."""
        return [line.get_attribute("textContent") for line in self.find_all("[role=log] p")]

    @property
    def state(self):
        return self.switch().find_element(By.ID, "state").get_attribute("data-state")

    @property
    def error(self):
        return self.switch().find_element(By.ID, "error").text

    @property
    def was_lost(self):
        return self.find("body").get_attribute("data-was-lost") == "yes"

    def wait_for(self, text):
        self.wait(lambda: text in self.texts, f"{text!r} did not arrive")

    def wait_for_state(self, state):
        self.wait(lambda: self.state == state, f"the line did not become {state}")

    def wait(self, condition, message=""):
        WebDriverWait(self.browser, PATIENCE, 0.05).until(lambda _: condition(), message)
