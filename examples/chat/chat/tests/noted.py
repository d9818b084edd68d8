"""The site with its static files, which notes in a file which process serves each WebSocket."""

import os
from pathlib import Path

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

from chatsite.asgi import application as site

pages = ASGIStaticFilesHandler(site)


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        note_process()
    await (pages if scope["type"] == "http" else site)(scope, receive, send)


def note_process():
    with Path(os.environ["CHAT_NOTES"]).open("a", encoding="ascii") as notes:
        notes.write(f"{os.getpid()}\n")
