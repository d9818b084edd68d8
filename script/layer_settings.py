"""The page of CHANNEL_LAYERS: every key that a layer's CONFIG may hold, from the source.

Parameters come from the constructors and are explained by the "Args" of the class; options come
from the dataclasses that the constructor passes to `split_options`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

#: Layer -> the module that has it, its extra, the module and name of its own options.
LAYERS: dict[str, tuple[str, str, str]] = {
    "LocalChannelLayer": ("channels.backends.local.layer", "", "HubOptions"),
    "InMemoryChannelLayer": ("channels.backends.memory.layer", "", ""),
    "RedisChannelLayer": ("channels.backends.redis.layer", "redis", "RedisOptions"),
    "RedisPubSubChannelLayer": ("channels.backends.redis.layer", "redis", "RedisOptions"),
    "PostgresChannelLayer": ("channels.backends.postgres.layer", "postgres", "PostgresOptions"),
    "DatabaseChannelLayer": ("channels.backends.database.layer", "", "DatabaseOptions"),
    "RabbitMQChannelLayer": ("channels.backends.rabbitmq.layer", "rabbitmq", "RabbitMQOptions"),
    "NatsChannelLayer": ("channels.backends.nats.layer", "nats", "NatsOptions"),
}
#: What an entry of CHANNEL_LAYERS may hold -> what it is.
ENTRY = {
    "BACKEND": "dotted path of the layer's class, below `channels.layers`",
    "CONFIG": "the keys of this page",
    "TEST_CONFIG": "takes the place of `CONFIG` in a [test run](../topics/testing.md)",
    "ROUTING": "dotted path of a routing in [the way of Channels 1](../topics/channels-1.md)",
}
VARIADIC = {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL}

Shown = Callable[[Any, str], str]


def documented_tables() -> set[type]:
    """The option classes that this page has, which the page of options leaves out."""
    from channels.backends.postgres.options import TableOptions  # noqa: PLC0415 - after set_up
    from channels.layers.delivery import Delivery  # noqa: PLC0415
    from channels.layers.options import LayerOptions  # noqa: PLC0415

    own = {
        getattr(importlib.import_module(module), options)
        for module, _, options in LAYERS.values()
        if options
    }
    return own | {TableOptions, LayerOptions, Delivery}


def settings_page(note: str, shown: Shown) -> str:
    """The page; `shown(value, unit)` writes a default."""
    from channels.checks import LAYER_KEYS  # noqa: PLC0415 - after set_up
    from channels.layers.delivery import Delivery  # noqa: PLC0415
    from channels.layers.options import LayerOptions  # noqa: PLC0415

    assert ENTRY.keys() == LAYER_KEYS, "ENTRY and channels.checks.LAYER_KEYS differ"
    entry = [f"| `{key}` | {text} |" for key, text in ENTRY.items()]
    parts = [
        note,
        "# CHANNEL_LAYERS",
        "Every key of the setting. An unknown key in `CONFIG` is an error at the start "
        "(`channels.E004`), a value out of bounds as well; beside `CONFIG` an unknown key is a "
        "warning (`channels.W005`). [Which layer?](../topics/which-layer.md) says which to take.",
        "\n".join(["| key of an entry | what |", "|---|---|", *entry]),
        "## Every layer",
        table(option_rows(LayerOptions, shown)),
        "## Delivery",
        "A value of `delivery` is `at-most-once`, `at-least-once`, or a dictionary of these keys "
        "([workers](../topics/workers.md#at-least-once)):",
        table(option_rows(Delivery, shown)),
    ]
    for name, (module_name, extra, options) in LAYERS.items():
        module = importlib.import_module(module_name)
        kind = getattr(module, name)
        rows = [*parameter_rows(kind, shown, set(LayerOptions.__dataclass_fields__))]
        if options:
            rows.extend(option_rows(getattr(module, options), shown))
        needed = f"It needs the extra `{extra}`." if extra else "It needs no further package."
        own = (
            f"Keys beside those of every layer:\n\n{table(rows)}"
            if rows
            else "It has no keys beside those of every layer, and ignores any other "
            "(`channels.W011`)."
        )
        parts.append(f"## {name}")
        parts.append(f'`"BACKEND": "channels.layers.{name}"`. {needed} {own}')
    parts.extend(other_names())
    return "\n\n".join(parts) + "\n"


def other_names() -> Iterator[str]:
    """The rows of `channels.layers.aliases`."""
    from channels.layers.aliases import BACKENDS  # noqa: PLC0415 - after set_up

    yield "## Other names"
    yield (
        "Settings written for other packages keep their `BACKEND`. A key that is renamed or "
        "ignored may stay as well. `RedisSentinelChannelLayer` is `RedisChannelLayer` with the "
        "addresses of Sentinels as `hosts`, and the names that they watch as `services`."
    )
    rows = []
    for name, backend in BACKENDS.items():
        renamed = ", ".join(f"`{old}` is `{new}`" for old, new in backend.renamed.items())
        ignored = ", ".join(f"`{key}`" for key in sorted(backend.ignored))
        layer = backend.path.rpartition(".")[2]
        rows.append(f"| `{name}` | `{layer}` | {renamed} | {ignored} |")
    head = "| BACKEND | layer here | keys renamed | keys ignored |\n|---|---|---|---|"
    yield "\n".join([head, *rows])


def table(rows: list[tuple[str, str, str, str]]) -> str:
    """Rows of (key, default, unit, what)."""
    lines = ["| key | default | unit | what |", "|---|---|---|---|"]
    lines.extend(f"| `{key}` | {rest[0]} | {rest[1]} | {rest[2]} |" for key, *rest in rows)
    return "\n".join(lines)


def option_rows(table_class: type, shown: Shown) -> Iterator[tuple[str, str, str, str]]:
    """A row for every field of a class of options, in order."""
    from channels.kit.options import options_of  # noqa: PLC0415 - after set_up

    declared = {option.name: option for option in options_of(table_class)}
    remarks = field_comments(table_class)
    for field in dataclasses.fields(table_class):
        if field.name not in declared:
            text = remarks[field.name]
            yield field.name, f"`{field.default!r}`", "", text
            continue
        said = declared[field.name].declaration
        text = said.help
        if said.choices:
            text += f"; one of {', '.join(f'`{choice}`' for choice in said.choices)}"
        if said.none:
            text += f"; `None`: {said.none}"
        yield field.name, shown(field.default, said.unit), said.unit, text.replace("|", "\\|")


def field_comments(table_class: type) -> dict[str, str]:
    """Field -> the `#:` comment above it, also of classes that it derives from."""
    found: dict[str, str] = {}
    for kind in reversed(table_class.__mro__[:-1]):
        comment: list[str] = []
        for line in inspect.getsource(kind).splitlines():
            text = line.strip()
            if text.startswith("#:"):
                comment.append(text.removeprefix("#:").strip())
                continue
            if comment and (field := re.match(r"(\w+):", text)):
                found[field[1]] = in_cell(" ".join(comment))
            comment = []
    return found


def parameter_rows(
    kind: type, shown: Shown, general: set[str]
) -> Iterator[tuple[str, str, str, str]]:
    """A row for every parameter of a layer's constructor, and of those that it derives from."""
    seen: set[str] = set()
    explained: dict[str, str] = {}
    for each in reversed(kind.__mro__[:-1]):
        if each.__module__.startswith("channels.backends."):
            explained |= arguments_of(each)
    for each in kind.__mro__:
        if "__init__" not in vars(each) or not each.__module__.startswith("channels.backends."):
            continue
        function: Any = vars(each)["__init__"]
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind in VARIADIC or name in seen | general | {"self"}:
                continue
            seen.add(name)
            required = parameter.default is inspect.Parameter.empty
            default = "required" if required else shown(parameter.default, "")
            yield name, default, "", in_cell(explained[name])


def arguments_of(kind: type) -> dict[str, str]:
    """Parameter -> its text in the section "Args" of a class's docstring."""
    text = inspect.cleandoc(kind.__doc__ or "")
    section = re.search(r"^Args:\n(?P<body>(?: {4}.*\n?|\n)*)", text, re.M)
    found: dict[str, str] = {}
    name = ""
    for line in textwrap.dedent(section["body"]).splitlines() if section else []:
        if start := re.match(r"(\w+): (.*)", line):
            name = start[1]
            found[name] = start[2]
        elif name:
            found[name] += " " + line.strip()
    return found


def in_cell(text: str) -> str:
    """A sentence as the text of a table's cell: from a small letter on, without its full stop."""
    return (text[0].lower() + text[1:]).strip().rstrip(".").replace("|", "\\|")
