"""reactpy-django: components in Python; rendered in a thread with an event loop of its own."""

REQUIREMENTS = ["reactpy-django"]
APPS = ["reactpy_django"]
SETTINGS = {"REACTPY_CLEAN_INTERVAL": None, "REACTPY_BACKHAUL_THREAD": True}

PAGE = """{% load reactpy %}<!DOCTYPE html><html><head></head><body>
{% component "compliance.packages.cases.reactpy_django.counter" %}
</body></html>"""


def _counter():
    from reactpy import component, hooks, html

    @component
    def counter():
        count, set_count = hooks.use_state(0)
        return html.button({"on_click": lambda event: set_count(count + 1)}, f"clicked {count}")

    return counter


def __getattr__(name):
    # The component can be made only once Django is set up, and is named by its dotted path.
    if name != "counter":
        raise AttributeError(name)
    return globals().setdefault("counter", _counter())


def views():
    from django.http import HttpResponse
    from django.template import engines
    from django.urls import include, path

    def page(request):
        return HttpResponse(engines["django"].from_string(PAGE).render({}, request))

    return [path("reactpy/", include("reactpy_django.http.urls")), path("", page)]


def application(django):
    from reactpy_django import REACTPY_WEBSOCKET_ROUTE
    from reactpy_django.utils import register_component

    from channels.auth import AuthMiddlewareStack
    from channels.routing import ProtocolTypeRouter, URLRouter

    register_component(f"{__name__}.counter")
    stack = AuthMiddlewareStack(URLRouter([REACTPY_WEBSOCKET_ROUTE]))
    return ProtocolTypeRouter({"http": django, "websocket": stack})


def drive(site):
    import json
    import re
    from uuid import uuid4

    status, page = site.request("GET", "/")
    assert status == 200, page
    assert re.search("mountComponent|reactpy", page), page
    path = f"/reactpy/{__name__}.counter/{uuid4()}/0/?http_pathname=/&http_search="
    with site.socket(path) as socket:
        for count in range(3):
            text = json.dumps(heard := socket.hear_until(type="layout-update"))
            while f"clicked {count}" not in text:
                text = json.dumps(heard := socket.hear_until(type="layout-update"))
            target = re.search(r'"target": "([^"]+)"', text)
            assert target, heard
            socket.say({"type": "layout-event", "target": target[1], "data": [{}]})
