"""What this process counts, in the form that Prometheus reads.

    application = ProtocolTypeRouter({
        "http": URLRouter([path("metrics", metrics_app()), re_path("", get_asgi_application())]),
        ...
    })

A process tells of itself: its channel layers and its servers; with `channels serve --workers` any
worker answers for all.  Other processes are targets of their own.  The package prometheus-client is
needed.
"""

try:
    from channels.metrics.collector import ChannelsCollector
    from channels.metrics.exposition import metrics_app, metrics_view
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "prometheus_client":
        raise
    raise ImportError(
        "channels.metrics needs the package prometheus-client: pip install prometheus-client."
    ) from error

__all__ = ["ChannelsCollector", "metrics_app", "metrics_view"]
