"""Options: one declaration, many forms."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

import pytest

from channels.exceptions import InvalidOption
from channels.kit.limits import Limits, Timeouts
from channels.kit.options import (
    add_arguments,
    check_options,
    from_environment,
    from_mapping,
    option,
    options_of,
    unknown_variables,
)


@dataclass(frozen=True, slots=True)
class Table:
    wait: float | None = option(5.0, unit="seconds", minimum=0.5, none="never", help="wait")
    size: int = option(10, unit="bytes", minimum=1, maximum=100, help="size", flag="--how-big")
    kind: str = option("plain", choices=("plain", "fancy"), help="kind")
    loud: bool = option(False, help="loud")
    hosts: tuple[str, ...] = option((), help="hosts", short="-H")

    def __post_init__(self) -> None:
        check_options(self)


def parse(*words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_arguments(parser, Table)
    return vars(parser.parse_args(list(words)))


def test_flags_that_are_not_given_leave_the_default() -> None:
    assert parse() == {}
    assert from_mapping(Table, parse()) == Table()


def test_flags() -> None:
    given = parse("--wait", "2.5", "--how-big", "7", "--kind=fancy", "--loud", "--hosts", "a, b")
    assert from_mapping(Table, given) == Table(2.5, 7, "fancy", True, ("a", "b"))


def test_a_short_flag_and_one_that_is_repeated() -> None:
    given = parse("-H", "a,b", "--hosts", "c")
    assert from_mapping(Table, given).hosts == ("a", "b", "c")


def test_help_tells_the_default_or_what_none_means() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Table)
    text = parser.format_help()
    assert "-H HOSTS" in text
    assert "default: none" in text
    assert "default: 5.0" in text


def test_none_has_a_word() -> None:
    assert parse("--wait", "never") == {"wait": None}


@pytest.mark.parametrize(
    "words", [("--how-big", "0"), ("--how-big", "101"), ("--how-big", "x"), ("--wait", "0.1")]
)
def test_flags_out_of_bounds_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises((argparse.ArgumentError, SystemExit)):
        parse(*words)


def test_environment() -> None:
    environ = {"CHANNELS_WAIT": "none", "CHANNELS_LOUD": "yes", "CHANNELS_OTHER": "1"}
    assert from_environment(Table, environ) == {"wait": None, "loud": True}


def test_a_variable_is_named_after_the_flag_or_the_option() -> None:
    assert from_environment(Table, {"CHANNELS_HOW_BIG": "7"}) == {"size": 7}
    assert from_environment(Table, {"CHANNELS_SIZE": "8"}) == {"size": 8}
    both = {"CHANNELS_SIZE": "8", "CHANNELS_HOW_BIG": "7"}
    assert from_environment(Table, both) == {"size": 7}
    with pytest.raises(InvalidOption, match="The environment variable CHANNELS_HOW_BIG: size=0"):
        from_environment(Table, {"CHANNELS_HOW_BIG": "0"})


def test_help_names_the_variable() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser, Table)
    assert "[CHANNELS_HOW_BIG]" in parser.format_help()


def test_variables_that_no_option_has_are_told_but_not_those_of_kubernetes() -> None:
    environ = {
        "CHANNELS_HOW_BIGG": "7",
        "CHANNELS_X": "",
        "CHANNELS_SIZE": "8",
        "OTHER": "x",
        # A Service named "channels", and one named "channels-web".
        "CHANNELS_PORT": "tcp://10.0.0.1:80",
        "CHANNELS_PORT_80_TCP": "tcp://10.0.0.1:80",
        "CHANNELS_PORT_80_TCP_PROTO": "tcp",
        "CHANNELS_SERVICE_HOST": "10.0.0.1",
        "CHANNELS_SERVICE_PORT_HTTP": "80",
        "CHANNELS_WEB_PORT": "tcp://10.0.0.1:80",
        "CHANNELS_WEB_PORT_80_TCP_ADDR": "10.0.0.1",
        "CHANNELS_WEB_SERVICE_PORT": "80",
    }
    first, second = unknown_variables([Table], environ)
    assert "CHANNELS_HOW_BIGG" in first
    assert first.endswith("did you mean CHANNELS_HOW_BIG?")
    assert "CHANNELS_X" in second


def test_environment_with_a_word_that_is_no_bool() -> None:
    with pytest.raises(InvalidOption, match="loud='maybe'"):
        from_environment(Table, {"CHANNELS_LOUD": "maybe"})


def test_mapping_ignores_what_belongs_to_other_tables() -> None:
    assert from_mapping(Table, {"size": 3, "elsewhere": True}) == Table(size=3)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"size": None}, "size may not be None"),
        ({"size": 0}, "the least is 1 bytes"),
        ({"size": 101}, "the most is 100 bytes"),
        ({"size": "10"}, "expected an integer, in bytes"),
        ({"size": True}, "expected an integer, in bytes"),
        ({"kind": "odd"}, "expected one of plain, fancy"),
    ],
)
def test_errors_say_what_was_found_and_expected(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidOption, match=text):
        Table(**wrong)


@pytest.mark.parametrize("table", [Limits, Timeouts])
def test_the_tables_defaults_are_within_their_own_bounds(table: type) -> None:
    check_options(table())


@pytest.mark.parametrize("table", [Limits, Timeouts])
def test_every_flag_is_named_once_and_has_a_unit(table: type) -> None:
    declared = list(options_of(table))
    assert len({one.flag for one in declared}) == len(declared)
    assert all(one.declaration.unit and one.declaration.help for one in declared)
