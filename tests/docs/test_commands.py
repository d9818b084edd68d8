"""Commands that the documentation shows exist, and so do the flags it gives them."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import pytest
from django.core.management import BaseCommand, get_commands, load_command_class

from tests.docs.test_links import PAGES
from tests.docs.tutorial import ROOT

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
VARIABLE = re.compile(r"\bCHANNELS_([A-Z_]+)\b(?=[=`])")
#: Variables of the package that no flag stands for.
NO_FLAGS = {"TEST_RUN"}
MANAGE = re.compile(r"manage\.py ([a-z]+)")
#: A command with its arguments, over lines that end in a backslash.
SERVE = re.compile(r"channels serve(?:[^\n`]*\\\n)*[^\n`]*")
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
