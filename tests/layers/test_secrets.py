"""Passwords, tokens and keys stand in no error, log line, repr, statistics or check."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from channels import checks
from channels.exceptions import ChannelsError, InvalidChannelLayerError
from channels.kit.printable import printable
from channels.layers.redaction import without_secrets
from channels.testing.layers.base import until
from tests.cluster.servers import redis_server

SECRET = "s3cretWord"
#: As it is where somebody forgot to escape what follows, and in forms that parsers stumble over.
SPOILT = [f"{SECRET}{end}" for end in ("/x", "?x=y", "#x", "@x", ":x", "[", "%zz", "\u2100", " x")]

#: What is needed -> BACKEND -> a CONFIG that it takes, with a secret wherever one may be.
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "channels.layers.InMemoryChannelLayer": ("msgpack", {}),
    "channels.layers.LocalChannelLayer": ("msgpack", {}),
    "channels.layers.RedisChannelLayer": (
        "redis",
        {"hosts": [f"redis://user:{SECRET}@127.0.0.1:1/0"]},
    ),
    "channels.layers.RedisPubSubChannelLayer": (
        "redis",
        {"hosts": [{"address": ("127.0.0.1", 1), "password": SECRET}]},
    ),
    "channels.backends.redis.RedisSentinelChannelLayer": (
        "redis",
        {
            "services": ["main"],
            "hosts": [("127.0.0.1", 1)],
            "connection_kwargs": {"password": SECRET},
        },
    ),
    "channels.layers.RabbitMQChannelLayer": (
        "aiormq",
        {"url": f"amqp://user:{SECRET}@127.0.0.1:1/"},
    ),
    "channels.layers.NatsChannelLayer": (
        "channels.backends.nats",
        {"servers": [f"nats://{SECRET}@127.0.0.1:1", f"nats://user:{SECRET}@127.0.0.1:1"]},
    ),
    "channels.layers.PostgresChannelLayer": (
        "psycopg",
        {"dsn": f"postgresql://user:{SECRET}@127.0.0.1:1/x"},
    ),
    "channels.layers.DatabaseChannelLayer": ("django", {}),
}

CLUSTER = {"hosts": [f"redis://:{SECRET}@127.0.0.1:1"], "cluster_shards": 2}
SENTINELS = {
    "hosts": [
        {
            "sentinels": [("127.0.0.1", 1)],
            "master_name": "m",
            "password": SECRET,
            "sentinel_kwargs": {"password": SECRET},
        }
    ]
}
OUT_OF_REACH = [
    *((name, config) for name, (_, config) in LAYERS.items() if config),
    ("channels.layers.RedisChannelLayer", CLUSTER),
    ("channels.layers.RedisChannelLayer", SENTINELS),
    (
        "channels.layers.PostgresChannelLayer",
        {"dsn": {"host": "127.0.0.1", "port": 1, "password": SECRET}},
    ),
]


def layer_class(backend: str) -> Any:
    pytest.importorskip(LAYERS[backend][0])
    module, _, name = backend.rpartition(".")
    return getattr(importlib.import_module(module), name)


def spoilt_redis() -> Iterator[Any]:
    for word in SPOILT:
        for scheme in ("redis", "rediss", "unix", "rediz"):
            yield [f"{scheme}://:{word}@127.0.0.1:6379/0"]
            yield [f"{scheme}://{word}"]
            yield [{"address": f"{scheme}://user:{word}@127.0.0.1:port"}]
        yield f"redis://:{word}@127.0.0.1:6379/0"
        yield word.encode()
        yield [word]
        yield [word.encode()]
        yield [[word]]
        yield [("127.0.0.1", 6379, word)]
        yield {"password": word}
        yield [f"redis://:{SECRET}@127.0.0.1:6379/0?foo={word}"]
        yield [f"redis://:{SECRET}@127.0.0.1:6379/0?socket_timeout={word}"]
        yield [{"password": word, "host": "a", "passwort": word}]
        yield [{"password": word, "host": "a", "protocol": word}]
        yield [{"sentinels": [("a", 1)], "password": word}]
        yield [{"sentinels": [("a", word)], "master_name": "m"}]
        yield [{"sentinels": [("a", 1, word)], "master_name": "m"}]


def spoilt(option: str, *schemes: str) -> Iterator[dict[str, Any]]:
    for word in SPOILT:
        for scheme in schemes:
            for url in (f"{scheme}://user:{word}@127.0.0.1:port", f"{scheme}://{word}"):
                yield {option: url}
                yield {option: [url]}
                yield {option: url.encode()}
                yield {option: {"password": word}}
                yield {option: [(word,)]}
        yield {option: word}
        yield {option: f"user:{word}@127.0.0.1"}


def malformed(backend: str) -> Iterator[dict[str, Any]]:
    """CONFIGs with a secret that the layer cannot take, or takes otherwise than was meant."""
    if "Redis" in backend:
        more = {"services": ["main"]} if "Sentinel" in backend else {}
        for hosts in spoilt_redis():
            yield {"hosts": hosts, **more}
        yield {
            "hosts": [("a", 1)],
            "connection_kwargs": {"password": SECRET, "foo": SECRET},
            **more,
        }
    elif "RabbitMQ" in backend:
        yield from spoilt("url", "amqp", "amqps", "http")
    elif "Nats" in backend:
        yield from spoilt("servers", "nats", "tls", "http")
    elif "Postgres" in backend:
        for option in ("dsn", "listen_dsn"):
            yield from spoilt(option, "postgresql", "postgres", "http")
            yield {option: f"host=a password={SECRET}' port="}
            yield {option: f"host=a {SECRET}"}
            yield {option: f"host=a password={SECRET} foo=1"}
            yield {option: {"password": SECRET, "foo": SECRET}}
    for keys in (SECRET, SECRET.encode(), [SECRET, None], [SECRET, ""], {SECRET: 1}, [[SECRET]]):
        yield {**LAYERS[backend][1], "symmetric_encryption_keys": keys}
    if backend != "channels.layers.InMemoryChannelLayer":
        yield {**LAYERS[backend][1], "symmetric_encryption_keys": [SECRET], "unheard": SECRET}
    yield {**LAYERS[backend][1], "symmetric_encryption_keys": [SECRET], "capacity": 0}


def texts(error: BaseException | None) -> Iterator[str]:
    """What an error says, and those behind it, shown or not."""
    while error is not None:
        yield str(error)
        yield repr(error)
        error = error.__cause__ or error.__context__


def reachable(root: object) -> Iterator[object]:
    """All that can be reached from an object of this package through others of it."""
    seen, left = {id(root)}, [root]
    while left:
        found = left.pop()
        yield found
        for each in gc.get_referents(found):
            kind = type(each)
            is_ours = kind.__module__.partition(".")[0] in ("channels", "redis", "psycopg")
            if id(each) in seen or not (
                is_ours or kind in {dict, list, tuple, set, functools.partial, type(lambda: 0)}
            ):
                continue
            seen.add(id(each))
            left.append(each)


def assert_hidden(text: str) -> None:
    assert SECRET.lower() not in text.lower(), text


@pytest.mark.parametrize("backend", LAYERS)
def test_a_mistake_in_the_settings_does_not_show_a_secret(
    backend: str, caplog: pytest.LogCaptureFixture, settings: Any
) -> None:
    make, refused = layer_class(backend), 0
    caplog.set_level(logging.DEBUG)
    for config in malformed(backend):
        try:
            layer = make(**config)
        except Exception as error:
            refused += isinstance(error, ChannelsError)
            for text in texts(error):
                assert_hidden(text)
        else:
            assert_hidden(repr(layer))
        settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": config}}
        assert_hidden(str(checks.check_layers()))
    assert refused >= 7
    assert_hidden(caplog.text)


@pytest.mark.parametrize("backend", LAYERS)
def test_checks_do_not_show_settings_of_the_wrong_type(backend: str, settings: Any) -> None:
    layer_class(backend)
    entry = {"BACKEND": backend, "CONFIG": f"redis://:{SECRET}@a"}
    for configs in ({"default": entry}, [entry], {"default": [entry]}, f"redis://:{SECRET}@a"):
        settings.CHANNEL_LAYERS = configs
        found = checks.check_layers()
        assert found
        assert_hidden(str(found))


@pytest.mark.parametrize("backend", LAYERS)
def test_no_repr_and_no_statistic_has_a_secret(backend: str) -> None:
    layer = layer_class(backend)(**LAYERS[backend][1], symmetric_encryption_keys=[SECRET * 4])
    assert_hidden(repr(layer.statistics()))
    for found in reachable(layer):
        if type(found).__module__.partition(".")[0] in {"channels", "redis", "psycopg"}:
            assert_hidden(repr(found))


@pytest.mark.parametrize(("backend", "config"), OUT_OF_REACH)
async def test_a_broker_that_is_out_of_reach_does_not_show_a_secret(
    backend: str, config: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    layer = layer_class(backend)(**config, send_timeout=0.3)
    caplog.set_level(logging.DEBUG)
    # The fourth is answered after the first connection has failed.
    for verb, arguments in (
        (layer.send, ("worker", {"type": "x"})),
        (layer.group_send, ("room", {"type": "x"})),
        (layer.group_add, ("room", "worker")),
    ):
        with pytest.raises(ChannelsError) as caught:
            await verb(*arguments)
        for text in texts(caught.value):
            assert_hidden(text)
    await until(lambda: "out of reach" in caplog.text, "the log line")
    assert_hidden(repr(layer.statistics()))
    await layer.close()
    for task in asyncio.all_tasks():
        assert_hidden(repr(task))
    assert_hidden(caplog.text)


async def test_a_refused_login_does_not_show_the_password(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make = layer_class("channels.layers.RedisChannelLayer")
    caplog.set_level(logging.DEBUG)
    with redis_server(tmp_path) as server:
        layer = make(hosts=[f"redis://user:{SECRET}@127.0.0.1:{server.port}"], send_timeout=1)
        with pytest.raises(ChannelsError) as caught:
            await layer.send("worker", {"type": "x"})
        for text in texts(caught.value):
            assert_hidden(text)
        await until(lambda: "invalid username-password" in caplog.text, "the log line")
        await layer.close()
    assert_hidden(caplog.text)


# Keys ---------------------------------------------------------------------------


@pytest.mark.parametrize("backend", LAYERS)
@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("", "list"),
        (b"", "list"),
        ("secret", "list"),
        (7, "list"),
        ([""], r"keys\[0\] is empty"),
        ([b""], r"keys\[0\] is empty"),
        ([" \n"], r"keys\[0\] is empty"),
        (["good", ""], r"keys\[1\] is empty"),
        (("good", None), r"keys\[1\] is None"),
        ([7], r"keys\[0\] is of type int"),
    ],
    ids=str,
)
def test_keys_that_everybody_has_are_refused(backend: str, keys: Any, words: str) -> None:
    make = layer_class(backend)
    with pytest.raises(InvalidChannelLayerError, match=rf"symmetric_encryption_.*{words}"):
        make(**LAYERS[backend][1], symmetric_encryption_keys=keys)


@pytest.mark.parametrize("backend", LAYERS)
def test_only_the_in_memory_layer_takes_objects(backend: str) -> None:
    make = layer_class(backend)
    if backend == "channels.layers.InMemoryChannelLayer":
        make(serializer_format="in-process")
        return
    with pytest.raises(InvalidChannelLayerError, match=r"'in-process'.*expected one of.*json, "):
        make(**LAYERS[backend][1], serializer_format="in-process")


# What is shown ------------------------------------------------------------------


def test_a_drivers_text_is_shown_without_the_words_of_the_settings() -> None:
    text = "cannot cast 'pass' of redis://u:pass/word@h to a port; unexpected keyword foo"
    shown = without_secrets(text, {"address": "redis://u:pass/word@h?foo=1", "b": [b"port;"]})
    assert "pass" not in shown
    assert "word@" not in shown
    assert "cannot cast" in shown
    assert "foo" in shown


def test_what_others_wrote_is_cut_and_escaped_in_log_lines() -> None:
    assert printable("ä\n\x1b[2Jx\u202e") == r"ä\n\x1b[2Jx\u202e"
    assert printable("x" * 10_000) == "x" * 200 + "..."


def test_a_mistake_is_named_and_told_how_to_mend() -> None:
    make = layer_class("channels.layers.RedisChannelLayer")
    for hosts, words in [
        ([f"redis://:{SECRET}/x@127.0.0.1"], "%2F"),
        (["redis://:12345/x@127.0.0.1"], "after the host"),
        ([f"rediz://:{SECRET}@127.0.0.1"], "redis, rediss, unix"),
        ([f"redis://:{SECRET}@127.0.0.1?foo=1"], "foo"),
        ([("a", 1, SECRET)], "type tuple with 3 items"),
    ]:
        with pytest.raises(InvalidChannelLayerError, match=words):
            make(hosts=hosts)


def test_a_secret_may_hold_every_character_that_is_escaped() -> None:
    make = layer_class("channels.layers.RedisChannelLayer")
    layer = make(hosts=["redis://:a%2Fb%3Fc%23d%40e%3Af%5Bg%25@127.0.0.1:1/0"])
    assert layer.create_pool(0).connection_kwargs["password"] == "a/b?c#d@e:f[g%"
    assert Path(layer.hosts[0]["address"]).name == "0"
