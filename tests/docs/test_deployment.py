"""The deployment page says what `compliance/deployment` runs."""

from __future__ import annotations

import re

import pytest
from compliance.deployment.page import PageError, block, processes
from compliance.deployment.unit import UnitFailed, parse


def test_each_process_has_the_socket_that_both_proxies_name() -> None:
    unit = block("ini", "mysite@.service")
    paths = []
    for number in processes():
        service = parse(unit, number)
        found = re.search(r"--unix-socket (\S+)", service["ExecStart"])
        assert found is not None
        assert found[1].startswith(f"/run/{service['RuntimeDirectory']}/")
        paths.append(found[1])
    nginx, haproxy = block("nginx", "upstream mysite"), block("haproxy")
    assert re.findall(r"server unix:(\S+) max_fails=0;", nginx) == paths
    assert re.findall(r"^ +server \S+ unix@(\S+)$", haproxy, re.M) == paths


def test_a_restart_waits_for_the_new_process() -> None:
    assert parse(block("ini", "mysite@.service"), "1")["Type"] == "notify"


@pytest.mark.parametrize(
    "field",
    [
        *("X-Forwarded-For", "X-Forwarded-Port", "X-Forwarded-Proto", "X-Forwarded-Host"),
        *("X-Forwarded-Prefix", "X-Real-IP", "Forwarded", "Daphne-Root-Path"),
    ],
)
def test_both_proxies_set_or_remove_what_a_client_may_not_say(field: str) -> None:
    assert re.search(rf"proxy_set_header {field} ", block("nginx", "upstream mysite"))
    assert re.search(rf"http-request (set|del)-header {field}\b", block("haproxy"))


def test_what_is_not_on_the_page_is_an_error() -> None:
    with pytest.raises(PageError, match="0 nginx blocks"):
        block("nginx", "no such words")
    with pytest.raises(UnitFailed, match="CPUQuota"):
        parse("[Service]\nType=notify\nCPUQuota=20%\n", "1")
