"""The page of checks, loggers, counts and codes has those of the source, and no others."""

from __future__ import annotations

import ast
import dataclasses
import re
from importlib import import_module

from channels.kit.limits import Limits, Timeouts
from channels.metrics.statistics import NODE, PARTS, find_metric
from channels.server.options import ServerOptions
from channels.server.request_deadlines import LATE
from tests.docs.sources import ROW, calls, first_texts, modules, nodes, sections, texts
from tests.docs.tutorial import ROOT

SECTIONS = sections(ROOT / "docs/reference/diagnostics.md")
COUNT = re.compile(r"(transport_|hub_)*(dropped|refused)_[a-z_]+")
#: Numbers of the source that look like a close code or a status and are none.
OTHER_NUMBERS = {
    ("channels/security/websocket.py", 443),  # a port
    ("channels/server/endpoints.py", 438),  # permissions of a file
    ("channels/server/log_writer.py", 438),
    ("channels/sessions.py", 500),  # compared with a status of the application's
}


def rows(section: str) -> set[str]:
    return set(ROW.findall(SECTIONS[section]))


def reasons(kind: str) -> set[str]:
    """The label `reason` of every count of drops, or of refusals."""
    named = {text for text in texts() if COUNT.fullmatch(text)}
    found = [find_metric(name) for name in named] + [*NODE.values(), *PARTS.values()]
    return {metric.labels["reason"] for metric in found if metric.name == kind}


def test_system_checks() -> None:
    known = set()
    for name in ("channels.checks", "channels.security.checks"):
        mine = {
            keyword.value.value
            for kind in ("Info", "Warning", "Error")
            for call in calls(kind, f"{name.replace('.', '/')}.py")
            for keyword in call.keywords
            if keyword.arg == "id" and isinstance(keyword.value, ast.Constant)
        }
        documented = import_module(name).__doc__ or ""
        assert set(re.findall(r"channels\.[EWI]\d+", documented)) == mine
        known |= mine
    assert rows("System checks") == known


def test_loggers() -> None:
    # Daphne's name of the module is given by __name__.
    assert rows("Loggers") == first_texts("getLogger") | {"daphne.server"}


def test_reasons_of_drops() -> None:
    legacy = {f"dropped_{reason}" for reason in first_texts("drop", "channels/legacy/")}
    of_workers = {f"dropped_{name}" for name in ("malformed", "unrouted", "retries", "full")}
    table, _, workers = SECTIONS["Dropped messages"].partition("Workers in")
    assert set(ROW.findall(table)) == reasons("dropped")
    assert set(ROW.findall(workers)) == of_workers
    assert legacy - {"dropped_http", "dropped_websocket"} == of_workers


def test_reasons_of_refusals() -> None:
    assert rows("Refused messages") == reasons("refused")


def test_reasons_of_cut_connections() -> None:
    server = "channels/server/"
    late = {reason for reason, _ in LATE.values()}
    floods = first_texts("Flood", "channels/wire/http2/")
    assert rows("Connections cut off") == (
        first_texts("cut_off", server)
        | first_texts("ClientLimitExceeded")
        | late
        | floods
        | {"stop"}
    )
    assert any(
        isinstance(node, ast.Subscript) and ast.unparse(node) == "counts.cut['stop']"
        for node in nodes(server)
    )


def test_options_that_are_named_exist() -> None:
    names = {
        field.name
        for table in (Limits, Timeouts, ServerOptions)
        for field in dataclasses.fields(table)
    }
    for section in ("Connections cut off", "Close codes", "HTTP statuses"):
        said = SECTIONS[section]
        named = set(re.findall(r"`((?:max|min|websocket)_\w+|\w+_timeout)`", said))
        assert named <= names, section


def test_statuses_that_the_server_answers() -> None:
    found = set()
    for part in ("channels/server/", "channels/wire/", "channels/sessions.py"):
        found |= numbers(part, 400, 599)
    for part in (
        "channels/routing.py",
        "channels/generic/http.py",
        "channels/metrics/",
        "channels/security/",
    ):
        found |= numbers(part, 400, 599)
    found |= numbers("channels/exceptions.py", 400, 599)
    assert {int(row) for row in rows("HTTP statuses")} == found


def test_close_codes() -> None:
    found = numbers("channels/wire/websocket.py", 1000, 4999, constants=True)
    for part in ("wire/assembly", "consumer/", "generic/", "security/", "legacy/", "server/server"):
        found |= numbers(f"channels/{part}", 1000, 4999, constants=True)
    # The default of a protocol error, and of what a stopping server sends.
    found |= {1002, ServerOptions().websocket_stop_code}
    assert {int(row) for row in rows("Close codes")} == found


def numbers(below: str, least: int, most: int, *, constants: bool = False) -> set[int]:
    """The numbers in some modules; with `constants` those alone that a module gives a name."""
    found = set()
    for path, tree in modules().items():
        if not path.startswith(below):
            continue
        for node in ast.walk(tree):
            if constants and not (
                isinstance(node, ast.Assign | ast.AnnAssign) and node in tree.body
            ):
                continue
            value = node.value if constants else node  # type: ignore[attr-defined]
            if not isinstance(value, ast.Constant) or type(value.value) is not int:
                continue
            number = value.value
            if least <= number <= most and (path, number) not in OTHER_NUMBERS:
                found.add(number)
    return found
