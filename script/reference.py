"""Write docs/reference: what the public names say of themselves, and every option.

A page lists modules, a module its public names; a name that is gone makes this fail.  Signatures
are taken from the source text, so that annotations and defaults stand as they were written.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import importlib
import inspect
import os
import pkgutil
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from layer_settings import documented_tables, settings_page
from reference_pages import PAGES

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "docs" / "reference"
INDEX = ROOT / "docs" / "README.md"
NOTE = "<!-- Written by script/docs from the source: change the docstring, not this page. -->"
SECTIONS = {"Args", "Raises", "Returns", "Yields", "Attributes"}

#: Options of these modules can be given to a command; the others are keys of a setting.
WITH_FLAGS = (
    "channels.kit.limits",
    "channels.kit.threads",
    "channels.server",
    "channels.cli",
    "channels.metrics_port",
    "channels.supervisor",
    "channels.worker",
    "channels.legacy.interface.options",
    "channels.legacy.worker_options",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    is_check = parser.parse_args().check
    set_up()
    stale = []
    for path, text in pages().items():
        if path.exists() and path.read_text() == text:
            continue
        stale.append(path)
        if not is_check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for path in stale:
        print(f"{'not current' if is_check else 'written'}: {path.relative_to(ROOT)}")
    return 1 if is_check and stale else 0


def set_up() -> None:
    sys.path[:0] = [str(ROOT / "src"), str(ROOT)]
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    importlib.import_module("django").setup()


def pages() -> dict[Path, str]:
    """Every page, and the list of them in the index."""
    made = {TARGET / f"{name}.md": page(name) for name in PAGES}
    made[TARGET / "options.md"] = options_page()
    made[TARGET / "settings.md"] = settings_page(NOTE, shown)
    lines = [
        f"* [{title}](reference/{name}.md): {line}" for name, (title, line, _) in PAGES.items()
    ]
    lines.append("* [Options](reference/options.md): Every flag and variable, with its default.")
    lines.append("* [CHANNEL_LAYERS](reference/settings.md): Every key of every layer.")
    lines.append(
        "* [Checks, loggers, counts and codes](reference/diagnostics.md): What is said when "
        "something is wrong; not made from the source, but compared with it."
    )
    head, _, _ = INDEX.read_text().partition("<!-- reference -->")
    made[INDEX] = f"{head}<!-- reference -->\n" + "\n".join(lines) + "\n"
    return made


def page(name: str) -> str:
    title, line, modules = PAGES[name]
    parts = [NOTE, f"# {title}", line]
    if name == "errors":
        modules = {"channels.exceptions": error_names()}
    for module_name, names in modules.items():
        module = importlib.import_module(module_name)
        parts.append(f"## `{module_name}`")
        for public in names:
            parts.extend(entry(public, getattr(module, public)))
    return "\n\n".join(parts) + "\n"


def error_names() -> list[str]:
    module = importlib.import_module("channels.exceptions")
    return [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value)
        and issubclass(value, BaseException)
        and value.__module__ == module.__name__
    ]


def entry(name: str, value: Any) -> Iterator[str]:
    yield f"### {name}"
    if inspect.isclass(value):
        yield from class_entry(value)
    elif inspect.isroutine(value):
        yield code(signature(value, name))
        yield prose(value)


def class_entry(kind: type) -> Iterator[str]:
    public = {name for _, _, modules in PAGES.values() for it in modules.values() for name in it}
    bases = ", ".join(
        f"`{base.__name__}`" for base in kind.__bases__ if base.__name__ in public - {kind.__name__}
    )
    if dataclasses.is_dataclass(kind):
        fields = [field_parameter(field) for field in dataclasses.fields(kind) if field.init]
        yield code(folded(kind.__name__, fields, ""))
    else:
        maker = next(base for base in kind.__mro__ if "__init__" in vars(base))
        if maker.__module__.startswith("channels."):
            yield code(signature(vars(maker)["__init__"], kind.__name__, is_method=True))
    if bases:
        yield f"Derives from {bases}."
    text = prose(kind)
    if text:
        yield text
    for name, member in vars(kind).items():
        function = plain_function(member)
        if name.startswith("_") or function is None or not inspect.getdoc(function):
            continue
        if function.__doc__ is None:
            continue
        yield f"#### {kind.__name__}.{name}"
        if isinstance(member, property):
            yield code(f"{name}: {returned(function)}")
        else:
            yield code(signature(function, name, is_method=True))
        yield prose(function)


def field_parameter(field: dataclasses.Field[Any]) -> str:
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "Any")
    if field.default is not dataclasses.MISSING:
        return f"{field.name}: {kind} = {field.default!r}"
    return f"{field.name}: {kind}" + (" = ..." if callable(field.default_factory) else "")


def returned(function: Any) -> str:
    kind = function.__annotations__.get("return", "Any")
    return kind if isinstance(kind, str) else str(getattr(kind, "__name__", kind))


def plain_function(member: Any) -> Any:
    if isinstance(member, staticmethod | classmethod):
        member = member.__func__
    if isinstance(member, property):
        member = member.fget
    return inspect.unwrap(member) if inspect.isfunction(member) else None


def signature(function: Any, name: str, *, is_method: bool = False) -> str:
    """How a function is called, as its source says."""
    try:
        source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
        node = ast.parse(source).body[0]
    except (OSError, TypeError, SyntaxError):
        return f"{name}{inspect.signature(function)}"
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    arguments = node.args
    if is_method and not any(ast.unparse(it) == "staticmethod" for it in node.decorator_list):
        arguments.args = arguments.args[1:]
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    if name[0].isupper():
        returns = ""
    return folded(f"{prefix}{name}", parameters(arguments), returns)


def parameters(arguments: ast.arguments) -> list[str]:
    """Each parameter as it is written in a call's declaration, the bare * and / included."""
    found: list[str] = []
    positional = arguments.posonlyargs + arguments.args
    defaults = [None] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    for number, (parameter, default) in enumerate(zip(positional, defaults, strict=True), 1):
        found.append(declared(parameter, default))
        if number == len(arguments.posonlyargs):
            found.append("/")
    if arguments.vararg:
        found.append("*" + declared(arguments.vararg, None))
    elif arguments.kwonlyargs:
        found.append("*")
    for parameter, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        found.append(declared(parameter, default))
    if arguments.kwarg:
        found.append("**" + declared(arguments.kwarg, None))
    return found


def declared(parameter: ast.arg, default: ast.expr | None) -> str:
    text = parameter.arg
    if parameter.annotation:
        text += f": {ast.unparse(parameter.annotation)}"
    if default is None:
        return text
    return (
        f"{text} = {ast.unparse(default)}"
        if parameter.annotation
        else f"{text}={ast.unparse(default)}"
    )


def folded(name: str, found: list[str], returns: str) -> str:
    whole = f"{name}({', '.join(found)}){returns}"
    if len(whole) <= 96:
        return whole
    return f"{name}(\n" + "".join(f"    {it},\n" for it in found) + f"){returns}"


def code(text: str) -> str:
    return f"```python\n{text}\n```"


def prose(value: Any) -> str:
    """A docstring as Markdown: its sections become lists."""
    documented = getattr(value, "__doc__", None)
    if not documented or (
        dataclasses.is_dataclass(value) and documented.startswith(value_name(value))
    ):
        return ""
    lines: list[str] = []
    section = ""
    for line in re.sub(r"\.  \b", ". ", inspect.cleandoc(documented)).splitlines():
        head = line.rstrip(":")
        if line.endswith(":") and head in SECTIONS:
            section = head
            lines.extend([f"**{head}**", ""])
        elif section and line.startswith("    ") and not line.startswith("     "):
            lines.append("* " + re.sub(r"^([\w*., ]+):", r"`\1`:", line.strip()))
        elif section and line.startswith("     "):
            lines.append("  " + line.strip())
        else:
            section = section if not line.strip() else ""
            lines.append(line)
    return "\n".join(lines)


def value_name(value: Any) -> str:
    """What dataclasses write as the docstring of a class without one begins with its name."""
    return f"{value.__name__}("


def options_page() -> str:
    parts = [
        NOTE,
        "# Options",
        "Each option is declared once; its flag, its environment variable (`CHANNELS_` and the "
        "flag's name in capitals, `CHANNELS_PING_INTERVAL` say) and these tables come from that. A "
        "flag beats the environment. The keys of a channel layer's `CONFIG` have "
        "[a page of their own](settings.md).",
    ]
    elsewhere = documented_tables()
    for table in (each for each in option_tables() if each not in elsewhere):
        parts.append(f"## {table.__name__}")
        parts.append(f"`{table.__module__}.{table.__qualname__}`. {prose(table)}".strip())
        parts.append(option_table(table))
    return "\n\n".join(parts) + "\n"


def option_tables() -> list[type]:
    """Every dataclass of the package that declares options, in the order of its module's name."""
    import channels  # noqa: PLC0415 - after set_up
    from channels.kit.options import options_of  # noqa: PLC0415

    found: dict[str, type] = {}
    for info in pkgutil.walk_packages(channels.__path__, "channels."):
        if ".management." in info.name or info.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(info.name)).values():
            if (
                inspect.isclass(value)
                and dataclasses.is_dataclass(value)
                and value.__module__.startswith("channels.")
                and any(options_of(value))
            ):
                found[f"{value.__module__}.{value.__qualname__}"] = value
    return [found[name] for name in sorted(found)]


def option_table(table: type) -> str:
    from channels.kit.options import options_of  # noqa: PLC0415

    has_flags = table.__module__.startswith(WITH_FLAGS)
    lines = [
        "| name | flag | default | unit | what |"
        if has_flags
        else "| name | default | unit | what |",
        "|---|---|---|---|---|" if has_flags else "|---|---|---|---|",
    ]
    for declared in options_of(table):
        said = declared.declaration
        default = (
            "" if declared.default is dataclasses.MISSING else shown(declared.default, said.unit)
        )
        text = said.help.replace("|", "\\|")
        if said.choices:
            text += f"; one of {', '.join(f'`{choice}`' for choice in said.choices)}"
        if said.none:
            text += f"; `None`: {said.none}"
        cells = [f"`{declared.name}`", f"`{declared.flag}`", default, said.unit, text]
        if not has_flags:
            del cells[1]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shown(value: Any, unit: str) -> str:
    if unit == "bytes" and value and value % 1024 == 0:
        return f"{value // 1048576} MiB" if value % 1048576 == 0 else f"{value // 1024} KiB"
    return f"`{value!r}`"


if __name__ == "__main__":
    sys.exit(main())
