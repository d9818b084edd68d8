"""channels-yroom: documents edited by several, kept by a worker process of its own.

Its consumers send to a worker's channel, and the worker answers to their channels.
"""

REQUIREMENTS = ["channels-yroom"]
APPS = ["channels_yroom"]


def application(django):
    from channels_yroom.consumer import YroomConsumer
    from django.urls import path

    from channels.routing import ProtocolTypeRouter, URLRouter

    class Editor(YroomConsumer):
        def get_room_name(self):
            return self.scope["url_route"]["kwargs"]["name"]

    return ProtocolTypeRouter(
        {"http": django, "websocket": URLRouter([path("doc/<name>", Editor.as_asgi())])}
    )


def drive(site):
    import signal
    import subprocess
    import sys

    worker = subprocess.Popen([sys.executable, "-m", "django", "yroom"])
    try:
        with site.socket("/doc/one") as first, site.socket("/doc/one") as second:
            # "Tell me what you have": the beginning of the synchronisation, said by the worker.
            for socket in (first, second):
                assert socket.connection.recv(60)[:2] == b"\x00\x00"
            # An awareness message of one goes to the others of the room.
            awareness = b"\x01" + bytes([6, 1, 5, 1, 2]) + b"{}"
            first.connection.send(awareness)
            assert second.connection.recv(60)[:1] == b"\x01"
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(60)
    assert worker.returncode == 0, worker.returncode
