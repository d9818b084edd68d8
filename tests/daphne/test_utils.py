"""What other packages import from `daphne.utils`."""

from __future__ import annotations

import pytest

from daphne.utils import header_value, import_by_path, parse_x_forwarded_for

ORIGINAL: list[str | int] = ["127.0.0.1", 80]


def test_import_by_path() -> None:
    assert import_by_path("daphne.utils:import_by_path") is import_by_path
    assert import_by_path("daphne.utils:import_by_path.__name__") == "import_by_path"


def test_header_value_takes_the_first() -> None:
    assert header_value({b"host": b" a "}, b"host") == "a"
    assert header_value({b"host": [b"a", b"b"]}, b"host") == "a"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, (ORIGINAL, "http")),
        ({b"X-Forwarded-For": b"10.1.2.3"}, (["10.1.2.3", 0], "http")),
        (
            {b"x-forwarded-for": b"10.1.2.3", b"x-forwarded-port": b"1234"},
            (["10.1.2.3", 1234], "http"),
        ),
        (
            {b"X-Forwarded-For": b"10.1.2.3", b"X-Forwarded-Port": b"many"},
            (["10.1.2.3", 0], "http"),
        ),
        ({b"X-Forwarded-For": b"10.1.2.3 , 10.9.9.9"}, (["10.1.2.3", 0], "http")),
        ({b"X-Forwarded-For": b"1043::a321"}, (["1043::a321", 0], "http")),
        ({b"X-Forwarded-Port": b"1234"}, (ORIGINAL, "http")),
        (
            {b"X-Forwarded-For": b"10.1.2.3", b"X-Forwarded-Proto": b"https"},
            (["10.1.2.3", 0], "https"),
        ),
    ],
)
def test_forwarded(
    headers: dict[bytes, bytes], expected: tuple[list[str | int] | None, str | None]
) -> None:
    found = parse_x_forwarded_for(headers, original_addr=ORIGINAL, original_scheme="http")
    assert found == expected


def test_without_a_header_for_the_address_nothing_is_believed() -> None:
    headers = {b"X-Forwarded-For": b"10.1.2.3"}
    assert parse_x_forwarded_for(headers, None, original_addr=ORIGINAL) == (ORIGINAL, None)
