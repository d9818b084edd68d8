"""What a command says when the project's code cannot be imported.

A traceback has the project's lines, and what a library did below the last of them.  The way there,
through Python's import system, Django and this package, says nothing.  What Django or this package
refuse by an error that says all is one line.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from types import TracebackType

from django.core.exceptions import AppRegistryNotReady, ImproperlyConfigured

from channels.exceptions import InvalidChannelLayerError, InvalidOption, StartupFailed
from channels.kit.libraries import is_library


@contextmanager
def importing(what: str) -> Iterator[None]:
    """Import code of the project inside it.

    Args:
        what: The name that the project's code is imported by.

    Raises:
        StartupFailed: For any error but InvalidOption, with what to say of it.
    """
    try:
        yield
    except InvalidOption:
        raise
    except Exception as error:
        raise StartupFailed(_text(what, error), filename=_file_at_fault(error)) from error


def _text(what: str, error: BaseException) -> str:
    """What the user sees: one line where that says all, else a traceback."""
    if isinstance(error, ImproperlyConfigured | InvalidChannelLayerError):
        cause = error.__cause__
        if cause is None or _file_at_fault(cause) is None:
            return f"{error}{_place(error)}"
        error = cause
    text = f"importing {what} failed:\n{_formatted(error)}"
    if isinstance(error, AppRegistryNotReady):
        text += "\nCall get_asgi_application() before the imports of code that uses models."
    return text


def _formatted(error: BaseException) -> str:
    # Python's own report ends with "Did you mean ...?", which `traceback` knows from 3.12 on only.
    # It shows the traceback that the error has, not the one that it is handed.
    whole = error.__traceback__
    error.__traceback__ = _without_libraries(error)
    try:
        with redirect_stderr(io.StringIO()) as text:
            sys.__excepthook__(type(error), error, error.__traceback__)
    finally:
        error.__traceback__ = whole
    return text.getvalue().rstrip()


def _place(error: BaseException) -> str:
    """The project's innermost line, in brackets; empty if there is none."""
    found = [link for link in _frames(error) if _is_of_project(link)]
    if not found:
        return ""
    return f" ({os.path.relpath(_file_of(found[-1]))}, line {found[-1].tb_lineno})"


def _frames(error: BaseException) -> list[TracebackType]:
    """The links of its traceback, outermost first."""
    found, link = [], error.__traceback__
    while link is not None:
        found.append(link)
        link = link.tb_next
    return found


def _is_of_project(link: TracebackType) -> bool:
    return not is_library(_file_of(link))


def _file_of(link: TracebackType) -> str:
    return link.tb_frame.f_code.co_filename


def _without_libraries(error: BaseException) -> TracebackType | None:
    """Its traceback without what libraries did above the project's innermost line."""
    kept = [link for link in _frames(error) if _is_of_project(link)]
    # Below a syntax error's last line is nothing but the import of the file that it names.
    if not isinstance(error, SyntaxError):
        kept += _frames(error)[_frames(error).index(kept[-1]) + 1 if kept else 0 :]
    rest: TracebackType | None = None
    for link in reversed(kept):
        rest = TracebackType(rest, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return rest


def _file_at_fault(error: BaseException | None) -> str | None:
    """The project's innermost file, of the first cause that tells one."""
    if error is None:
        return None
    if deeper := _file_at_fault(error.__cause__):
        return deeper
    if isinstance(error, SyntaxError):
        return error.filename
    found = [_file_of(link) for link in _frames(error) if _is_of_project(link)]
    return found[-1] if found else None
