"""What docs/deployment.md says, read from the page itself.

The page names the places of a machine that is somebody's server: folders in /srv and /run, port
443.  `Places` puts a temporary folder and a free port there, and nothing else of a block changes;
a place that a block no longer names is an error, so that the page cannot move away unnoticed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "deployment.md"


class PageError(Exception):
    """The page does not say what is read from it."""


def block(language: str, *words: str) -> str:
    """The one block of code in this language that has all these words.

    Raises:
        PageError: If there is none, or more than one.
    """
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    found: list[str] = [text for text in blocks if all(word in text for word in words)]
    if len(found) != 1:
        raise PageError(
            f"{len(found)} {language} blocks of {PAGE.name} have {words}: expected one."
        )
    return found[0]


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are in this run."""

    folder: Path
    port: int
    #: The program `channels` of the environment under test.
    program: Path

    def put(self, text: str, *names: str) -> str:
        """The block with this run's places in place of the page's.

        Raises:
            PageError: If one of the named places is not in it.
        """
        places = {
            "program": ("/srv/mysite/venv/bin/channels", str(self.program)),
            "site": ("/srv/mysite", str(self.folder / "srv")),
            "run": ("/run/mysite", str(self.folder / "run" / "mysite")),
            "certificates": ("/etc/ssl", str(self.folder / "ssl")),
            "nginx-port": ("listen 443 ", f"listen 127.0.0.1:{self.port} "),
            "haproxy-port": ("bind :443 ", f"bind 127.0.0.1:{self.port} "),
        }
        for name in names:
            theirs, ours = places[name]
            if theirs not in text:
                raise PageError(f"{PAGE.name} no longer names {theirs!r} here:\n{text}")
            text = text.replace(theirs, ours)
        return text


def processes() -> list[str]:
    """The processes in the order in which the page restarts them."""
    text = block("console", "systemctl restart mysite@")
    loop = re.search(r"for (\w+) in ([\w ]+); do systemctl restart mysite@\$\1\b", text)
    if loop is None:
        raise PageError(f"No loop over the processes in: {text}")
    return loop[2].split()
