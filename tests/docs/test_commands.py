"""Commands that the documentation shows exist, and so do the flags it gives them."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from functools import cache

import pytest
from django.core.management import BaseCommand, get_commands, load_command_class

from channels.cli import make_parser
from tests.docs.test_links import PAGES
from tests.docs.tutorial import ROOT

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
VARIABLE = re.compile(r"\bCHANNELS_([A-Z_]+)\b(?=[=`])")
#: Variables of the package that no flag stands for.
NO_FLAGS = {"TEST_RUN"}
MANAGE = re.compile(r"manage\.py ([a-z]+)")
#: A command with its arguments, over lines that end in a backslash.
SERVE = re.compile(r"channels serve(?:[^\n`]*\\\n)*[^\n`]*")
#: A block of commands, and a command in it: behind a prompt, or a line that goes on.
CONSOLE = re.compile(r"^```(?:console|bash)\n(?P<text>.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ (?P<line>(?:.*\\\n)*.*)$", re.M)
#: What a reader types that is not ours or Django's, and is tried by hand.
OTHERS = {
    *("cd", "echo", "export", "for", "pip", "python3", "systemctl", "."),
    *("script/bench", "script/check", "script/server", "script/test"),
}
TEXTS = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}


@cache
def flags_of_serve() -> set[str]:
    done = subprocess.run(
        [sys.executable, "-m", "channels", "serve", "--help"],
        cwd=ROOT / "src",
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return set(FLAG.findall(done.stdout))


@pytest.mark.parametrize("page", TEXTS)
def test_flags_of_channels_serve(page: str) -> None:
    for command in SERVE.findall(TEXTS[page]):
        assert set(FLAG.findall(command)) <= flags_of_serve(), command


@pytest.mark.parametrize("page", TEXTS)
def test_environment_variables(page: str) -> None:
    known = flags_of_serve() | own_flags("runworker")
    for name in set(VARIABLE.findall(TEXTS[page])) - NO_FLAGS:
        assert f"--{name.lower().replace('_', '-')}" in known, name


def own_flags(command: str) -> set[str]:
    """The flags of a management command beyond those that each of Django's has."""
    parsers = [
        made.create_parser("manage.py", "")
        for made in (BaseCommand(), load_command_class("channels", command))
    ]
    common, own = ({flag for it in each._actions for flag in it.option_strings} for each in parsers)
    return own - common


@pytest.mark.parametrize(
    ("command", "page"),
    [("runserver", "docs/topics/server.md"), ("runworker", "docs/topics/workers.md")],
)
def test_every_flag_of_a_management_command_is_on_its_page(command: str, page: str) -> None:
    for flag in own_flags(command) - {"-6"}:
        assert f"`{flag}`" in TEXTS[page], flag


@pytest.mark.parametrize("page", TEXTS)
def test_management_commands(page: str) -> None:
    own = {path.stem for path in (ROOT / page).parent.glob("*/management/commands/*.py")}
    for name in MANAGE.findall(TEXTS[page]):
        assert name in {*get_commands(), *own}, name


def commands() -> list[list[str]]:
    """The commands of all blocks, in words, without the variables that are set before them."""
    found = []
    for text in TEXTS.values():
        for block in CONSOLE.finditer(text):
            for each in COMMAND.finditer(block["text"]):
                words = shlex.split(each["line"], comments=True)
                while "=" in words[0]:
                    del words[0]
                found.append(words)
    return found


@pytest.mark.parametrize(
    "words", [words for words in commands() if words[0] not in OTHERS], ids=" ".join
)
def test_a_command_is_understood_with_all_that_it_is_given(words: list[str]) -> None:
    program, *arguments = words
    if program == "python":
        _understand_python(arguments)
    elif program == "django-admin":
        assert arguments[0] in get_commands()
    elif program == "daphne":
        assert arguments[-1].endswith(".asgi:channel_layer")
    else:
        assert program == "channels"
        make_parser().parse_args(arguments)


def _understand_python(arguments: list[str]) -> None:
    script = arguments[0]
    if script == "-m":
        assert arguments[1] in {"pytest", "channels"}
    elif script == "-c":
        compile(arguments[1], "shown", "exec")
    elif script != "manage.py":
        assert (ROOT / script).exists()
    elif (app := get_commands().get(arguments[1])) is not None:
        command = load_command_class(app, arguments[1]) if isinstance(app, str) else app
        command.create_parser("manage.py", arguments[1]).parse_args(arguments[2:])
