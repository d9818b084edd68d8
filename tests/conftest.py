"""What holds for the whole suite."""

from __future__ import annotations

import gc
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from channels.testing.layers.chaos import ChaosCases
from tests.cluster.authority import Authority
from tests.cluster.servers import OwnServer, free_port, rabbitmq_server

#: Fixtures of a module or a session that take seconds: one worker of pytest-xdist runs all their
#: tests, so that not every worker sets them up.  Chaos takes longer than that, in any worker.
DEAR = {"rabbitmq", "mysql_address", "stages", "made", "typed_monitor"}

# How long an example takes, or making it, says more about the machine than about the code.
settings.register_profile("channels", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("channels")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell has started this in the background; the processes of tests shall hear it all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)

if sys.version_info < (3, 12):
    # To underline the failing part of a line it parses that, which Python 3.11 cannot do on two
    # threads at once: what a thread logs would break the report of a failed test.
    traceback._extract_caret_anchors_from_line_segment = lambda segment: None  # type: ignore[attr-defined]


# Before pytest-xdist reads the groups.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what `script/test --chaos` runs, and what one worker runs."""
    cluster = Path(__file__).parent / "cluster"
    shipped = {name for name in vars(ChaosCases) if name.startswith("test_")}
    for item in items:
        is_case = issubclass(getattr(item, "cls", None) or object, ChaosCases)
        name = getattr(item, "originalname", item.name)
        if cluster in item.path.parents or (is_case and name in shipped):
            item.add_marker(pytest.mark.chaos)
            continue
        dear = DEAR.intersection(getattr(item, "fixturenames", ()))
        if dear and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(dear.pop()))


def pytest_collection_finish() -> None:
    """Spare the collector what lives to the end: ten thousand tests take it 0.3 s each time."""
    gc.freeze()


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A directory whose path leaves room for a Unix socket's name, as `tmp_path` does not."""
    with tempfile.TemporaryDirectory(prefix="ch-", dir="/tmp") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def amqps_port() -> int:
    """The port of `rabbitmq` for TLS, on which it asks for a certificate of `authority`'s."""
    return free_port()


@pytest.fixture(scope="session")
def rabbitmq(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, amqps_port: int
) -> Iterator[OwnServer]:
    """One RabbitMQ for all tests that want one: it takes its time to start."""
    signed = authority.sign("rabbitmq")
    settings = [
        f"listeners.ssl.1 = 127.0.0.1:{amqps_port}",
        f"ssl_options.cacertfile = {authority.certificate}",
        f"ssl_options.certfile = {signed.certificate}",
        f"ssl_options.keyfile = {signed.key}",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
    ]
    with rabbitmq_server(tmp_path_factory.mktemp("rabbitmq"), *settings) as server:
        yield server
