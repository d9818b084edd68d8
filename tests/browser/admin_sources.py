"""A site whose admin is used in one window and watched in another: its files.

Rows are created and deleted in Django's admin.  Signals tell a group of it, and the page in the
other window shows the rows as they come and go, over its WebSocket.
"""

from __future__ import annotations

from typing import Final

MODELS = """\
from django.db import models


class Message(models.Model):
    title = models.CharField(max_length=100)
    text = models.TextField()

    def __str__(self):
        return self.title
"""

ADMIN = """\
from django.contrib import admin

from board.models import Message

admin.site.register(Message)
"""

APPS = """\
from django.apps import AppConfig


class BoardConfig(AppConfig):
    name = "board"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self):
        import board.signals
"""

SIGNALS = """\
from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.db import transaction
from django.db.models.signals import post_delete, post_save
from django.dispatch import receiver

from board.models import Message


def tell(kind, message):
    event = {"type": "board.changed", "kind": kind, "title": message.title}
    # The admin works in a transaction: before its end nobody else sees the row.
    transaction.on_commit(lambda: async_to_sync(get_channel_layer().group_send)("board", event))


@receiver(post_save, sender=Message)
def saved(instance, created, **kwargs):
    tell("created" if created else "changed", instance)


@receiver(post_delete, sender=Message)
def deleted(instance, **kwargs):
    tell("deleted", instance)
"""

CONSUMERS = """\
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncJsonWebsocketConsumer

from board.models import Message


class BoardConsumer(AsyncJsonWebsocketConsumer):
    groups = ["board"]

    async def connect(self):
        if not self.scope["user"].is_staff:
            await self.close()
            return
        await self.accept()
        await self.send_json({"kind": "hello", "user": self.scope["user"].username,
                              "titles": await self.titles()})

    async def board_changed(self, event):
        await self.send_json({"kind": event["kind"], "title": event["title"],
                              "titles": await self.titles()})

    @database_sync_to_async
    def titles(self):
        return list(Message.objects.order_by("pk").values_list("title", flat=True))
"""

PAGE = """\
<!DOCTYPE html>
<title>Board</title>
<p id="user"></p><ul id="titles"></ul><p id="news"></p>
<script>
const socket = new WebSocket("ws://" + location.host + "/ws/board/");
socket.onmessage = function (event) {
    const data = JSON.parse(event.data);
    if (data.user) document.getElementById("user").textContent = data.user;
    document.getElementById("titles").textContent = data.titles.join(", ");
    document.getElementById("news").textContent += data.kind + " " + (data.title || "") + ";";
};
socket.onclose = function () { document.getElementById("news").textContent += "closed;"; };
</script>
"""

URLS = """\
from django.contrib import admin
from django.urls import path
from django.views.generic import TemplateView

urlpatterns = [
    path("admin/", admin.site.urls),
    path("board/", TemplateView.as_view(template_name="board/page.html")),
]
"""

ASGI = """\
import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
django_application = get_asgi_application()

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import AllowedHostsOriginValidator
from django.urls import path

from board.consumers import BoardConsumer

application = ProtocolTypeRouter(
    {
        "http": django_application,
        "websocket": AllowedHostsOriginValidator(
            AuthMiddlewareStack(URLRouter([path("ws/board/", BoardConsumer.as_asgi())]))
        ),
    }
)
"""

TESTS = """\
from channels.testing import ChannelsLiveServerTestCase
from django.contrib.auth.models import User
from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from board.models import Message
from headless import options


class AdminTests(ChannelsLiveServerTestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.driver = webdriver.Chrome(options=options())
        cls.addClassCleanup(cls.driver.quit)

    def setUp(self):
        User.objects.create_superuser("ada", password="secret")

    def test_rows_come_and_go(self):
        self.log_in()
        self.assertTrue(self.driver.execute_script(STYLED), "the admin came without its style")
        admin_window = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        self.driver.get(self.live_server_url + "/board/")
        board_window = self.driver.current_window_handle
        self.wait(lambda: self.text("user") == "ada", "the consumer did not know the user")

        for title in ("First", "Second"):
            self.driver.switch_to.window(admin_window)
            self.add(title)
            self.driver.switch_to.window(board_window)
            self.wait(lambda: f"created {title};" in self.text("news"), "no live update")
        self.assertEqual(self.text("titles"), "First, Second")
        self.assertEqual([each.text for each in Message.objects.order_by("pk")], ["text"] * 2)

        self.driver.switch_to.window(admin_window)
        self.delete_all_listed()
        self.driver.switch_to.window(board_window)
        self.wait(lambda: "deleted First;" in self.text("news"), "no live update of the end")
        self.wait(lambda: "deleted Second;" in self.text("news"), "no live update of the end")
        self.wait(lambda: self.text("titles") == "", "the rows stayed on the page")
        self.assertFalse(Message.objects.exists())
        self.assertNotIn("closed", self.text("news"))

    def test_a_row_of_the_tests_own_is_deleted_in_its_form(self):
        message = Message.objects.create(title="Mine", text="text")
        self.log_in()
        self.driver.get(f"{self.live_server_url}/admin/board/message/{message.pk}/delete/")
        self.driver.find_element(By.CSS_SELECTOR, "form input[type=submit]").click()
        self.wait(lambda: not Message.objects.exists(), "the row is still there")

    def test_a_visitor_is_refused(self):
        self.driver.delete_all_cookies()
        self.driver.get(self.live_server_url + "/board/")
        self.wait(lambda: "closed;" in self.text("news"), "the WebSocket was not refused")
        self.assertEqual(self.text("user"), "")

    def log_in(self):
        self.driver.get(self.live_server_url + "/admin/")
        self.driver.delete_all_cookies()
        self.driver.get(self.live_server_url + "/admin/")
        self.driver.find_element(By.ID, "id_username").send_keys("ada")
        self.driver.find_element(By.ID, "id_password").send_keys("secret\\n")
        self.wait(lambda: self.driver.find_elements(By.ID, "user-tools"), "not logged in")

    def add(self, title):
        self.driver.get(self.live_server_url + "/admin/board/message/add/")
        self.driver.find_element(By.ID, "id_text").send_keys("text")
        self.driver.find_element(By.ID, "id_title").send_keys(title)
        self.driver.find_element(By.NAME, "_save").click()
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, "li.success"), "not saved")

    def delete_all_listed(self):
        self.driver.get(self.live_server_url + "/admin/board/message/")
        # By a script of the admin's own static files, which ticks all the others.
        self.driver.find_element(By.ID, "action-toggle").click()
        self.driver.execute_script(
            'document.querySelector("select[name=action]").value = "delete_selected"'
        )
        self.driver.find_element(By.CSS_SELECTOR, ".actions button[name=index]").click()
        sure = (By.CSS_SELECTOR, "form input[type=submit][value]")
        self.wait(lambda: self.driver.find_elements(*sure), "nobody asks whether that is meant")
        self.driver.find_element(*sure).click()
        self.wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, "li.success"), "not deleted")

    def text(self, name):
        return self.driver.find_element(By.ID, name).text

    def wait(self, condition, message):
        try:
            WebDriverWait(self.driver, 60).until(lambda _: condition(), message)
        except TimeoutException as error:
            page = self.driver.find_element(By.TAG_NAME, "body").text
            raise AssertionError(f"{message}: {self.driver.current_url}\\n{page}") from error


# The admin's header has the colour that its style sheet gives it.
STYLED = '''
const header = document.getElementById("header");
return getComputedStyle(header).backgroundColor !== "rgba(0, 0, 0, 0)";
'''
"""

#: Path -> text of each file beside those of `startproject`.
FILES: Final = {
    "board/__init__.py": "",
    "board/migrations/__init__.py": "",
    "board/models.py": MODELS,
    "board/admin.py": ADMIN,
    "board/apps.py": APPS,
    "board/signals.py": SIGNALS,
    "board/consumers.py": CONSUMERS,
    "board/templates/board/page.html": PAGE,
    "board/tests.py": TESTS,
    "mysite/urls.py": URLS,
    "mysite/asgi.py": ASGI,
}
