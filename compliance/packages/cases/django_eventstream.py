"""django-eventstream: server-sent events from Django's asynchronous views."""

REQUIREMENTS = ["django-eventstream"]
APPS = ["django_eventstream"]
SETTINGS = {"EVENTSTREAM_STORAGE_CLASS": "django_eventstream.storage.DjangoModelStorage"}


def views():
    import django_eventstream
    from django.http import HttpResponse
    from django.urls import include, path

    def tell(request):
        django_eventstream.send_event("news", "message", {"text": request.GET["text"]})
        return HttpResponse("told")

    return [
        path("events/", include(django_eventstream.urls), {"channels": ["news"]}),
        path("tell/", tell),
    ]


def application(django):
    from channels.routing import ProtocolTypeRouter

    return ProtocolTypeRouter({"http": django})


def drive(site):
    from http.client import HTTPConnection

    def read(stream, wanted):
        while True:
            line = stream.readline().decode()
            assert line, "the stream ended"
            if wanted in line:
                return

    listener = HTTPConnection("127.0.0.1", site.port, timeout=30)
    listener.request("GET", "/events/", headers={"Accept": "text/event-stream"})
    stream = listener.getresponse()
    assert stream.status == 200
    read(stream, "stream-open")
    for text in ("one", "two"):
        assert site.request("GET", f"/tell/?text={text}") == (200, "told")
        read(stream, f'"{text}"')
    listener.close()

    # What was missed comes from its tables.
    site.request("GET", "/tell/?text=missed")
    again = HTTPConnection("127.0.0.1", site.port, timeout=30)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "news:2"}
    again.request("GET", "/events/", headers=headers)
    read(again.getresponse(), '"missed"')
    again.close()
