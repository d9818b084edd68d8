"""The house stands: imports go down, nothing runs in a circle, no room grows out of shape.

Type-only imports count: a shared type that lives too high is how circles begin.
"""

from __future__ import annotations

import ast
import statistics
import sys
from functools import cache
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src"

#: First name below `channels` -> floor.  A wing imports only what stands below it.
FLOORS = {
    "exceptions": 1,
    "kit": 1,
    "wire": 2,
    "fanout": 3,
    "server": 4,
    "layers": 4,
    "layers.process": 5,
    "backends": 6,
    "status": 6,
    "decoupled": 7,
    "supervisor": 7,
    "settings": 8,
    "live": 8,
    "generic": 8,
    "consumer": 8,
    "auth": 8,
    "sessions": 8,
    "stores": 8,
    "security": 8,
    "routing": 8,
    "middleware": 8,
    "db": 8,
    "lending": 8,
    "transactions": 8,
    "hacks": 8,
    "import_failure": 8,
    "http": 8,
    "staticfiles": 8,
    "signals": 8,
    "apps": 8,
    "checks": 8,
    "utils": 8,
    "metrics": 8,
    "opentelemetry": 8,
    "worker": 9,
    "testing": 9,
    "management": 9,
    "legacy": 9,
    # Module names of Channels 1 whose whole content it has.
    "asgi": 9,
    "binding": 9,
    "channel": 9,
    "delay": 9,
    "generic.base": 9,
    "generic.websockets": 9,
    "handler": 9,
    "log": 9,
    "message": 9,
    "package_checks": 9,
    "security.websockets": 9,
    "test": 9,
    "tests": 9,
    "cli": 9,
    "status_command": 9,
    "metrics_port": 9,
    "loading": 9,
    "__main__": 9,
}
#: Floors whose rooms may import each other, as long as there is no circle.
OPEN_FLOORS = {1, 8, 9}

PURE = {"asyncio", "socket", "ssl", "time", "threading", "logging", "selectors", "uvloop"}
#: Wing -> top-level modules it may not import.
FORBIDDEN = {"wire": PURE}
#: Faces: they name, for type checkers alone, classes that stand above them.
FACES = {"channels.layers": "channels.backends."}
#: The one backend that is Django's: it knows its databases.
KNOWS_DJANGO = "channels.backends.database"
#: Modules that make objects, and so calls, out of octets.
UNPICKLING = {"pickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle", "yaml"}
#: For tests: a test and the server process that it starts hand objects to each other.
UNPICKLES = {"channels.testing.process", "channels.testing.live", "daphne.testing"}
#: Classes whose name others have chosen: Django for commands, Daphne for its server, Channels 1 for
#: what programs import from it.
PUBLIC_DOUBLES = {
    "AsgiHandler": ["channels.http", "channels.legacy.handler"],
    "AsgiRequest": ["channels.http", "channels.legacy.handler"],
    "StaticFilesHandler": ["channels.legacy.staticfiles", "channels.staticfiles"],
    "Worker": ["channels.legacy.delay.worker", "channels.legacy.worker", "channels.worker"],
    "ChannelLayerManager": ["channels.layers.registry", "channels.legacy.asgi"],
    "Group": ["channels.fanout.hub", "channels.legacy.channel"],
    "Command": [
        "channels.legacy.delay.management.commands.rundelay",
        "channels.management.commands.runserver",
        "channels.management.commands.runworker",
        "daphne.management.commands.runserver",
    ],
    "JsonWebsocketConsumer": ["channels.generic.websocket", "channels.legacy.generic.websockets"],
    "WebsocketConsumer": ["channels.generic.websocket", "channels.legacy.generic.websockets"],
    "Server": ["channels.server.server", "daphne.server"],
}
DJANGO_FROM = 8
MOST_LINES = 450
MOST_FUNCTION_LINES = 60
MEDIAN_LINES = 150


@cache
def modules() -> dict[str, Path]:
    """Dotted name -> file, for the package and its two thin faces."""
    found = {}
    for path in sorted(SRC.rglob("*.py")):
        parts = list(path.relative_to(SRC).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


@cache
def nodes(name: str) -> list[ast.AST]:
    """The syntax of a module."""
    return list(ast.walk(ast.parse(modules()[name].read_text())))


@cache
def imports(name: str) -> frozenset[str]:
    """Every module that a module names in an import, its type-only ones too."""
    path = modules()[name]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in nodes(name):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join(above + ([node.module] if node.module else []))
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                found.add(whole if whole in modules() else base)
    return frozenset(found)


def top_level_imports(name: str) -> set[str]:
    return {target.partition(".")[0] for target in imports(name)}


def wing(name: str) -> str:
    """The longest beginning of a name that has a floor."""
    parts = name.split(".")[1:] if name.startswith("channels.") else []
    for length in (2, 1):
        known = ".".join(parts[:length])
        if known in FLOORS:
            return known
    return parts[0] if parts else ""


def ours() -> list[str]:
    return [name for name in modules() if name.startswith("channels.")]


def test_every_room_has_a_floor() -> None:
    assert {wing(name) for name in ours()} <= FLOORS.keys()


def test_imports_go_down() -> None:
    faults = []
    for name in ours():
        here = FLOORS[wing(name)]
        for target in imports(name):
            if not target.startswith("channels.") or wing(target) == wing(name):
                continue
            if name in FACES and target.startswith(FACES[name]):
                continue
            there = FLOORS[wing(target)]
            if there > here or (there == here and here not in OPEN_FLOORS):
                faults.append(f"{name} (floor {here}) imports {target} (floor {there})")
    assert faults == []


def test_nothing_runs_in_a_circle() -> None:
    done: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> None:
        if name in path:
            pytest.fail(" -> ".join([*path[path.index(name) :], name]))
        if name in done:
            return
        path.append(name)
        for target in sorted(imports(name)):
            if target in modules() and target != name:
                visit(target)
        path.pop()
        done.add(name)

    for name in modules():
        visit(name)


def test_forbidden_modules() -> None:
    faults: list[tuple[str, set[str]]] = []
    for name in ours():
        tops = top_level_imports(name)
        forbidden = tops & FORBIDDEN.get(wing(name), set())
        if FLOORS[wing(name)] < DJANGO_FROM and not name.startswith(KNOWS_DJANGO):
            forbidden |= tops & {"django"}
        if wing(name) == "kit":
            forbidden |= tops - sys.stdlib_module_names - {"channels"}
        if forbidden:
            faults.append((name, forbidden))
    assert faults == []


def test_octets_become_no_objects() -> None:
    """What comes over a socket, from a broker or out of a message is data, whoever wrote it."""
    faults: list[tuple[str, set[str]]] = []
    for name in modules():
        forbidden = {
            node.func.id
            for node in nodes(name)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        } & {"eval", "exec"}
        if name not in UNPICKLES:
            # The pipes of multiprocessing carry pickles.
            forbidden |= top_level_imports(name) & (UNPICKLING | {"multiprocessing"})
        if forbidden:
            faults.append((name, forbidden))
    assert faults == []


def test_sizes() -> None:
    faults = []
    for name, path in modules().items():
        if (lines := len(path.read_text().splitlines())) > MOST_LINES:
            faults.append(f"{name} has {lines} lines")
        for node in nodes(name):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                documented = ast.get_docstring(node, clean=False)
                lines -= len(documented.splitlines()) if documented else 0
                if lines > MOST_FUNCTION_LINES:
                    faults.append(f"{name}.{node.name} has {lines} lines")
    assert faults == []


def test_median_size() -> None:
    lines = [len(path.read_text().splitlines()) for path in modules().values()]
    assert statistics.median(lines) <= MEDIAN_LINES


def test_a_class_name_occurs_once() -> None:
    places: dict[str, set[str]] = {}
    for name in modules():
        for node in nodes(name):
            if isinstance(node, ast.ClassDef):
                places.setdefault(node.name, set()).add(name)
    found = {kind: sorted(where) for kind, where in places.items() if len(where) > 1}
    assert found == PUBLIC_DOUBLES
