"""Objects named on a command line: "module:attribute", applications and channel layers."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from channels.decoupled.edge import Edge
from channels.decoupled.options import EdgeOptions
from channels.exceptions import InvalidOption
from channels.import_failure import importing
from channels.kit.options import from_mapping
from channels.kit.types import Application
from channels.layers import get_channel_layer
from channels.legacy.interface.options import InterfaceOptions
from channels.middleware import is_double_callable, single_callable


def import_by_path(path: str) -> Any:
    """The object at "module:attribute.attribute"."""
    module, _, attributes = path.partition(":")
    target: Any = importlib.import_module(module)
    for name in attributes.split("."):
        target = getattr(target, name)
    return target


def load_application(path: str) -> Application:
    """The ASGI application at "module:attribute", imported as seen from the working directory.

    Raises:
        InvalidOption: If there is no such module or attribute, or it is no ASGI application.
        StartupFailed: For an error inside the module.
    """
    return as_application(load_object(path), path)


def load_object(path: str) -> Any:
    """The object at "module:attribute", imported as seen from the working directory.

    Raises:
        InvalidOption: If there is no such module or attribute.
        StartupFailed: For an error inside the module, with its traceback from there on.
    """
    import_from_here()
    module, _, attributes = path.partition(":")
    if not module or not attributes:
        raise InvalidOption(
            f"{path!r} is no application: expected module:attribute, as in mysite.asgi:application."
        )
    with importing(path):
        return _import(path, module, attributes)


def _import(path: str, module: str, attributes: str) -> Any:
    try:
        return import_by_path(path)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise InvalidOption(
            f"{path!r}: there is no module {error.name!r}, neither installed nor in {os.getcwd()}."
        ) from None
    except AttributeError as error:
        if error.obj is None or error.name not in attributes.split("."):
            raise
        raise InvalidOption(f"{path!r}: {error}.") from None


def import_from_here() -> None:
    """Let modules of the working directory be imported."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def is_channel_layer(found: Any) -> bool:
    """True for a channel layer, today's or with the verbs of Channels 1."""
    return hasattr(found, "new_channel") and hasattr(found, "send")


def interface_of(found: Any, values: Mapping[str, Any]) -> Application:
    """The application that carries connections into a channel layer, to workers elsewhere.

    A layer with ROUTING has workers of Channels 1; one without, consumers of today.  With
    http="edge" ASGI_APPLICATION answers HTTP in this process.

    Args:
        values: Options; those of the chosen application are taken.

    Raises:
        InvalidOption: If the layer stays inside this process, where no worker runs.
        StartupFailed: If http="edge" and ASGI_APPLICATION cannot be imported.
    """
    layer = getattr(found, "layer", found)
    capabilities = getattr(layer, "capabilities", None)
    if capabilities is not None and capabilities.is_direct:
        raise InvalidOption(
            f"{type(layer).__name__} stays inside one process, and no worker runs in this one: "
            "configure a layer that spans processes, such as channels.layers.LocalChannelLayer."
        )
    if is_routed(layer):
        # Here, because it takes Django along: `channels serve` may serve without.
        from channels.legacy.interface.application import InterfaceServer  # noqa: PLC0415

        return InterfaceServer(layer, from_mapping(InterfaceOptions, values))
    options = from_mapping(EdgeOptions, values)
    return Edge(layer, options, site_application() if options.http == "edge" else None)


def site_application() -> Application:
    """ASGI_APPLICATION.

    Raises:
        StartupFailed: If it cannot be imported.
    """
    # Here, because they take Django along: `channels serve` may serve without.
    from django.conf import settings  # noqa: PLC0415

    from channels.routing import get_default_application  # noqa: PLC0415

    path = str(getattr(settings, "ASGI_APPLICATION", None))
    with importing(path):
        found = get_default_application()
    return as_application(found, path)


def find_layer(path: str | None, alias: str) -> Any:
    """The channel layer at "module:attribute", or, without a path, of an alias of the settings.

    Raises:
        InvalidOption: If there is none.
        StartupFailed: For an error in the settings or in the module.
    """
    if path is not None:
        layer = load_object(path)
        if not is_channel_layer(layer):
            raise InvalidOption(
                f"{path!r} is no channel layer: expected one, as channels.asgi.get_channel_layer() "
                f"gives it; `channels serve {path}` serves an ASGI application."
            )
        return layer
    import_from_here()
    with importing("the settings"):
        layer = get_channel_layer(alias)
    if layer is None:
        raise InvalidOption(
            f"There is no {alias!r} in CHANNEL_LAYERS: name the settings in DJANGO_SETTINGS_MODULE "
            "(mysite.settings), or a layer as module:attribute."
        )
    return layer


def is_routed(found: Any) -> bool:
    """True if the workers of this layer run the Channels 1 way.

    `settings.has_routing` asks the settings, and makes no layer.
    """
    return getattr(getattr(found, "layer", found), "routing", None) is not None


def interface_tables() -> Iterator[type]:
    """The options of `interface_of`."""
    yield InterfaceOptions
    yield EdgeOptions


def as_application(found: Any, path: str) -> Application:
    """`found` in the form of ASGI 3; consumer classes and ASGI 2's two calls are taken as well.

    Raises:
        InvalidOption: If it is something else.
    """
    if is_channel_layer(found):
        raise InvalidOption(
            f"{path!r} is a channel layer, not an ASGI application: `channels interface {path}` "
            "serves it."
        )
    if not callable(found):
        raise InvalidOption(f"{path!r} is a {type(found).__name__}, not an ASGI application.")
    if not is_double_callable(found) and not _takes_three(found):
        raise InvalidOption(
            f"{path!r} cannot be called with (scope, receive, send), as an ASGI application is; "
            "if it is a WSGI application, name the one in asgi.py."
        )
    return single_callable(found)


def _takes_three(found: Any) -> bool:
    try:
        inspect.signature(found).bind(None, None, None)
    except TypeError:
        return hasattr(found, "as_asgi")
    except ValueError:  # written in C: nothing is known before the call
        return True
    return True
