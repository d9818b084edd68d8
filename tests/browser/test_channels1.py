"""The chat of examples/channels1 in two windows, while a worker with new code takes over."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser.test_examples import ROOT, browser
from tests.processes import PATIENCE_SECONDS, Child
from tests.tutorial.project import Project

__all__ = ["browser"]

pytestmark = pytest.mark.xdist_group("browser")

LINES = "return [...document.querySelectorAll('#chat tr')].map((row) => row.cells[2].textContent)"


@pytest.fixture
def window(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[webdriver.Chrome]:
    # Chromium keeps a socket there, whose path may have 107 characters.
    monkeypatch.setenv("HOME", str(short_path))
    monkeypatch.setenv("TMPDIR", str(short_path))
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options, service)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.mark.timeout(180)
def test_new_code_goes_live_and_no_page_reconnects(
    window: webdriver.Chrome, tmp_path: Path, short_path: Path
) -> None:
    project = Project(tmp_path / "channels1", "project")
    ignored = shutil.ignore_patterns("*.sqlite3", "__pycache__")
    shutil.copytree(ROOT / "examples" / "channels1", project.folder, ignore=ignored)
    project.manage("migrate")
    # The processes of this test meet here, and no others.
    env = {"TMPDIR": str(short_path)}
    words = ("-m", "daphne", "-p", "0", "project.asgi:channel_layer")
    worker_words = ("manage.py", "runworker", "--threads", "2")
    with (
        Child(*words, cwd=project.folder, env=env) as server,
        Child(*worker_words, cwd=project.folder, env=env) as worker,
    ):
        address = f"http://127.0.0.1:{server.wait_for_port()}/lobby/"
        window.get(address)
        first = window.current_window_handle
        window.switch_to.new_window("window")
        window.get(address)
        second = window.current_window_handle
        server.wait_for('"WSCONNECT /chat/lobby/"', 2)
        say(window, "before")
        for handle in (first, second):
            hears(window, handle, ["before"])
        assert worker.stop() == 0
        say(window, "meanwhile")
        consumers = project.folder / "chat" / "consumers.py"
        before, after = 'found["message"].strip()', 'found["message"].strip().upper()'
        text = consumers.read_text()
        assert before in text
        consumers.write_text(text.replace(before, after))
        with Child(*worker_words, cwd=project.folder, env=env):
            for handle in (first, second):
                hears(window, handle, ["before", "MEANWHILE"])
            say(window, "after")
            for handle in (first, second):
                hears(window, handle, ["before", "MEANWHILE", "AFTER"])
                assert window.find_element(By.ID, "state").text == ""
        assert server.output.count('"WSCONNECT ') == 2
        assert server.output.count('"WSDISCONNECT ') == 0


def say(window: webdriver.Chrome, text: str) -> None:
    """Type a message in the present window, and send it."""
    for field, typed in (("handle", "anna"), ("message", text)):
        found = window.find_element(By.ID, field)
        found.clear()
        found.send_keys(typed)
    window.find_element(By.CSS_SELECTOR, "#chatform button").click()


def hears(window: webdriver.Chrome, handle: str, lines: list[str]) -> None:
    """Wait until a window shows these messages."""
    window.switch_to.window(handle)
    wait = WebDriverWait(window, PATIENCE_SECONDS)
    wait.until(lambda driver: driver.execute_script(LINES) == lines)
