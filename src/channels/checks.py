"""System checks: what is set up so that connections or messages would be lost without a word.

    channels.W001  ASGI_APPLICATION is not set, and the default layer has no ROUTING
    channels.W002  ASGI_APPLICATION cannot be had
    channels.W003  another application's runserver, which serves no WebSocket, comes first
    channels.W004  an in-memory layer, and several processes
    channels.W005  a key in CHANNEL_LAYERS that nothing reads
    channels.W006  another distribution's files lie over this package's
    channels.W008  a key of a layer that is short enough to be guessed
    channels.W009  a list of keys of a layer that is empty, so that nothing is sealed
    channels.W010  this Python parses cookies in quadratic time (with --deploy)
    channels.W011  options in an in-memory layer's CONFIG that it ignores
    channels.W012  CHANNEL_LAYERS has no "default"
    channels.E001  CHANNEL_LAYERS is no dict of dicts
    channels.E002  a layer has no BACKEND
    channels.E003  a BACKEND cannot be imported
    channels.E004  a layer does not take its CONFIG
    channels.E005  the ROUTING of a layer cannot be had

Warnings do not stop a command: a project may serve its connections elsewhere.
"""

from __future__ import annotations

import http.cookies
import inspect
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module, metadata
from typing import Any, Final

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004
from django.core.exceptions import ImproperlyConfigured
from django.core.management import get_commands, load_command_class
from django.utils.module_loading import import_string

import channels
from channels import DEFAULT_CHANNEL_LAYER
from channels.layers import InMemoryChannelLayer
from channels.layers.aliases import find_backend
from channels.layers.options import LayerOptions
from channels.layers.registry import stays_in_its_process
from channels.routing import get_default_application
from channels.settings import has_routing

logger = logging.getLogger("channels.checks")

TAG: Final = "channels"
#: What an entry of CHANNEL_LAYERS may hold.
LAYER_KEYS: Final = frozenset({"BACKEND", "CONFIG", "TEST_CONFIG", "ROUTING"})
#: How many processes a deployment runs, by the convention of its starters (gunicorn, uvicorn,
#: platforms).
PROCESSES: Final = "WEB_CONCURRENCY"
#: Characters of a key: 128 random bits are as many in hexadecimal.  Keys are not stretched.
LEAST_KEY_LENGTH: Final = 32
#: What CONFIG may say to the in-memory layer.
MEMORY_OPTIONS: Final = frozenset(LayerOptions.__dataclass_fields__)
#: Of Channels 1; imported by name, for it stands above this module.
_ROUTING: Final = "channels.legacy.routing"
#: Distributions that bring modules of the names that this one brings.
OVERLAPPING: Final = ("daphne", "channels-redis")


@register(TAG)
def check_application(**_: Any) -> list[CheckMessage]:
    """ASGI_APPLICATION names an application."""
    named: Any = getattr(settings, "ASGI_APPLICATION", None)
    if not named:
        if has_routing(DEFAULT_CHANNEL_LAYER):
            return []
        return [
            Warning(
                "ASGI_APPLICATION is not set, so runserver cannot serve WebSockets.",
                hint='Name the application that routes connections: "mysite.asgi.application".',
                id="channels.W001",
            )
        ]
    hint = 'It is a dotted path to a module and a name in it: "mysite.asgi.application".'
    try:
        get_default_application()
    except ImproperlyConfigured as error:
        found = str(error)
    except Exception as error:
        found = f"importing {named!r} raised {error!r}"
        hint = "`manage.py runserver` shows the line."
    else:
        return []
    return [
        Warning(
            f"The application of ASGI_APPLICATION cannot be had: {found}",
            hint=hint,
            id="channels.W002",
        )
    ]


@register(TAG)
def check_runserver(**_: Any) -> list[CheckMessage]:
    """`runserver` is the one that serves WebSockets, or builds on it."""
    owner = get_commands().get("runserver")
    if not isinstance(owner, str):
        return []
    try:
        ours = import_module("channels.management.commands.runserver").Command
        found = load_command_class(owner, "runserver")
    except ImportError:
        # Said with its traceback by whoever runs that command.
        return []
    if isinstance(found, ours):
        return []
    return [
        Warning(
            f"runserver is {owner}'s, which serves no WebSockets.",
            hint=f'List "channels" before "{owner}" in INSTALLED_APPS.',
            id="channels.W003",
        )
    ]


@register(TAG)
def check_layers(**_: Any) -> list[CheckMessage]:
    """CHANNEL_LAYERS can be built from."""
    configs = getattr(settings, "CHANNEL_LAYERS", None) or {}
    if not isinstance(configs, Mapping) or not all(
        isinstance(entry, Mapping) for entry in configs.values()
    ):
        return [
            Error(
                # Not what it holds: a password may be in it.
                f"CHANNEL_LAYERS is no dict of dicts: found {_kinds(configs)}.",
                hint='Write {"default": {"BACKEND": "...", "CONFIG": {...}}}.',
                id="channels.E001",
            )
        ]
    found = [message for alias, entry in configs.items() for message in _check_layer(alias, entry)]
    if configs and DEFAULT_CHANNEL_LAYER not in configs:
        found.append(
            Warning(
                f"CHANNEL_LAYERS has no {DEFAULT_CHANNEL_LAYER!r}: found "
                f"{', '.join(map(repr, configs))}. Consumers have no layer, and "
                "get_channel_layer() returns None.",
                hint="Rename one, or, where all name an alias (channel_layer_alias), silence this.",
                id="channels.W012",
            )
        )
    return found


def log_layers() -> None:
    """Log what is wrong with CHANNEL_LAYERS, for a server that is no command of Django's."""
    if settings.configured and apps.ready:
        for message in check_layers():
            if not message.is_silenced():
                hint = f". {message.hint}" if message.hint else ""
                text = str(message.msg).rstrip(".")
                logger.log(message.level, "%s%s (%s)", text, hint, message.id)


@register(TAG)
def check_distributions(**_: Any) -> list[CheckMessage]:
    """Nobody else's files lie over ours."""
    return [
        Warning(
            f"The distribution {found!r} is installed beside this one and brings modules of the "
            "same names: which of the two runs is left to the order of installation.",
            hint="Run: pip uninstall channels daphne channels-redis; then install channels again.",
            id="channels.W006",
        )
        for found in _foreign_distributions()
    ]


def _kinds(configs: Any) -> str:
    """The type of CHANNEL_LAYERS, or of each of its entries."""
    if not isinstance(configs, Mapping):
        return f"type {type(configs).__name__}"
    return ", ".join(f"{alias!r}: {type(entry).__name__}" for alias, entry in configs.items())


@register(TAG, Tags.security, deploy=True)
def check_cookie_parser(**_: Any) -> list[CheckMessage]:
    """Python's cookie parser, which Django's views use, takes linear time."""
    # Distributions have the repair in older versions too; what it brought is looked for.
    if sys.version_info >= (3, 13) or hasattr(http.cookies, "_unquote_sub"):
        return []
    return [
        Warning(
            "This Python's http.cookies takes time with the square of a cookie's length "
            "(CVE-2024-7592): one request can keep a thread of Django's views busy for seconds.",
            hint="Update Python to 3.11.10, 3.12.6 or later.",
            id="channels.W010",
        )
    ]


def _check_layer(alias: str, entry: Mapping[str, Any]) -> Iterator[CheckMessage]:
    name = f"CHANNEL_LAYERS[{alias!r}]"
    if unknown := sorted(str(key) for key in entry.keys() - LAYER_KEYS):
        yield Warning(
            f"{name} has keys that nothing reads: {', '.join(unknown)}.",
            hint=f"It reads {', '.join(sorted(LAYER_KEYS))}; options of the layer go into CONFIG.",
            id="channels.W005",
        )
    if "ROUTING" in entry:
        yield from _check_routing(name, entry["ROUTING"])
    backend = entry.get("BACKEND")
    if not isinstance(backend, str) or not backend:
        yield Error(
            f"{name} has no BACKEND: found {backend!r}.",
            hint='Name a class: "channels.layers.InMemoryChannelLayer".',
            id="channels.E002",
        )
        return
    try:
        layer_class = import_string(find_backend(backend).path)
    except ImportError as error:
        yield Error(
            f"The BACKEND {backend!r} of {name} cannot be imported: {error}",
            hint="Correct the path, or install the package that brings it.",
            id="channels.E003",
        )
        return
    is_sound = True
    for key in ("CONFIG", *({"TEST_CONFIG"} & entry.keys())):
        if wrong := _config_error(backend, entry.get(key, {}), layer_class):
            is_sound = False
            yield Error(
                f"{backend} does not take the {key} of {name}: {wrong}",
                hint=f"Compare {key} with the options that the layer documents.",
                id="channels.E004",
            )
    if is_sound:
        yield from _check_keys(name, entry.get("CONFIG", {}).get("symmetric_encryption_keys"))
    if ignored := _ignored(entry.get("CONFIG"), layer_class):
        yield Warning(
            f"The in-memory layer of {name} ignores {', '.join(ignored)} in CONFIG.",
            hint=f"Its options are {', '.join(sorted(MEMORY_OPTIONS))}; is that a typing mistake?",
            id="channels.W011",
        )
    if stays_in_its_process(layer_class) and (several := _several_processes()):
        yield Warning(
            f"{name} is an in-memory layer, which other processes do not see, but {several}.",
            hint="Name a layer that spans processes, or run one process.",
            id="channels.W004",
        )


def _check_routing(name: str, routing: Any) -> Iterator[CheckMessage]:
    """What is wrong with a routing of Channels 1: it is made once, with all its consumers."""
    try:
        import_module(_ROUTING).Router(routing)
    except ImproperlyConfigured as error:
        found = str(error)
    except Exception as error:
        found = f"{routing!r} raised {error!r}"
    else:
        return
    yield Error(
        f"The ROUTING of {name} cannot be had: {found}",
        hint='Name a list of route() and include(): "mysite.routing.channel_routing".',
        id="channels.E005",
    )


def _check_keys(name: str, keys: Any) -> Iterator[CheckMessage]:
    """Keys that seal little, of a CONFIG that its layer takes."""
    if keys is None or not isinstance(keys, list | tuple):
        return
    if not keys:
        yield Warning(
            f"symmetric_encryption_keys of {name} is an empty list: nothing is sealed.",
            hint="List a key, or take the option out. Is an environment variable missing?",
            id="channels.W009",
        )
    short = [
        f"symmetric_encryption_keys[{number}]"
        for number, key in enumerate(keys)
        if isinstance(key, str | bytes) and len(key) < LEAST_KEY_LENGTH
    ]
    if short:
        yield Warning(
            f"{', '.join(short)} of {name} has less than {LEAST_KEY_LENGTH} characters: whoever "
            "can read the broker can try out short keys.",
            hint='Make one by: python -c "import secrets; print(secrets.token_urlsafe(32))".',
            id="channels.W008",
        )


def _config_error(backend: str, config: Any, layer_class: Callable[..., Any]) -> str | None:
    """What is wrong with CONFIG, or None.

    A layer of ours is built, which opens nothing; a third-party one is not, for who knows what it
    does: there only the names are compared with its constructor.
    """
    if not isinstance(config, Mapping):
        return f"it is no dict: found one of type {type(config).__name__}"
    try:
        if layer_class.__module__.partition(".")[0] == channels.__name__:
            layer_class(**find_backend(backend).translate(config))
        else:
            inspect.signature(layer_class).bind(**config)
    except (TypeError, ValueError, ImportError) as error:
        return str(error)
    return None


def _ignored(config: Any, layer_class: Any) -> list[str]:
    """What an in-memory layer of ours takes for a shared CONFIG's sake, and does nothing with."""
    if layer_class is not InMemoryChannelLayer or not isinstance(config, Mapping):
        return []
    return sorted(str(key) for key in config.keys() - MEMORY_OPTIONS)


def _several_processes() -> str | None:
    """How it is known that several processes are in use, or None."""
    count = os.environ.get(PROCESSES, "")
    if count.isdecimal() and int(count) > 1:
        return f"the environment variable {PROCESSES} asks for {count} processes"
    if "runworker" in sys.argv[1:2]:
        return "runworker is a process of its own"
    return None


def _foreign_distributions() -> Iterator[str]:
    for name in OVERLAPPING:
        if found := _version(name):
            yield f"{name} {found}"
    ours = _version(channels.__name__)
    if ours is not None and ours != channels.__version__:
        yield f"{channels.__name__} {ours}"


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
