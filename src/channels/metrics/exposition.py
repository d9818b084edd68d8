"""Ways to be scraped: an ASGI application, a view of Django's, and a port."""

from __future__ import annotations

from functools import cache

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import choose_encoder

from channels.kit.types import Application, Receive, Scope, Send
from channels.metrics.collector import ChannelsCollector


def own_registry() -> CollectorRegistry:
    """A registry with what this package counts, and nothing else."""
    # No help with names and labels that it has not, as the common one of the process may have.
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ChannelsCollector())
    return registry


@cache
def _shared_registry() -> CollectorRegistry:
    return own_registry()


def metrics_app(registry: CollectorRegistry | None = None) -> Application:
    """An ASGI application that answers GET and HEAD with the metrics of this process.

    Whoever reaches it may read them: give it a path that the outside does not see.

    Args:
        registry: What to show; None: what this package counts.  With prometheus_client's
            `REGISTRY`, after `REGISTRY.register(ChannelsCollector())`, all that the process counts.
    """
    shown = _shared_registry() if registry is None else registry

    async def metrics(scope: Scope, _: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"metrics_app() answers HTTP only: found {scope['type']!r}.")
        if scope["method"] in {"GET", "HEAD"}:
            accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
            body, content_type = render(shown, accept.decode("latin-1"))
            status, headers = 200, [(b"content-type", content_type.encode())]
        else:
            body, status, headers = b"", 405, [(b"allow", b"GET, HEAD")]
        headers.append((b"content-length", str(len(body)).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        shows_body = scope["method"] != "HEAD"
        await send({"type": "http.response.body", "body": body if shows_body else b""})

    return metrics


@require_safe
def metrics_view(request: HttpRequest) -> HttpResponse:
    """The same as a view: `path("metrics", metrics_view)`, behind any decorator of Django's."""
    body, content_type = render(_shared_registry(), request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type)


def serve_metrics(port: int, host: str) -> None:
    """The same on a port of its own, from now on, on a thread that ends with the process.

    Raises:
        OSError: If the port cannot be had.
    """
    start_http_server(port, host, _shared_registry())


def render(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """The metrics in a form that the client takes, and its content type."""
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type
