"""The error tree, as `except` clauses of projects know it."""

from __future__ import annotations

import pytest

from channels import exceptions
from channels.exceptions import mark_logged, was_logged


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("RequestAborted", Exception),
        ("RequestTimeout", exceptions.RequestAborted),
        ("InvalidChannelLayerError", ValueError),
        ("AcceptConnection", Exception),
        ("DenyConnection", Exception),
        ("ChannelFull", Exception),
        ("MessageTooLarge", Exception),
        ("StopConsumer", Exception),
        ("ClientDisconnected", OSError),
        ("NoRouteFound", ValueError),
        ("InvalidOption", ValueError),
        ("MalformedEnvelope", ValueError),
        ("LocalProtocolError", ValueError),
    ],
)
def test_what_catches_it(name: str, base: type[Exception]) -> None:
    with pytest.raises(base, match="why"):
        raise getattr(exceptions, name)("why")


@pytest.mark.parametrize("name", ["StopConsumer", "AcceptConnection", "ChannelFull"])
def test_a_clause_for_values_lets_it_pass(name: str) -> None:
    """What steers a consumer is not to be caught with bad input."""
    assert not issubclass(getattr(exceptions, name), ValueError | OSError | LookupError)


def test_an_error_remembers_that_it_was_logged() -> None:
    error = LookupError("no such room")
    assert not was_logged(error)
    mark_logged(error)
    assert was_logged(error)
