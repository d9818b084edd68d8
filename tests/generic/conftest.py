"""The layers of the consumers' tests."""

from tests.consumer.conftest import layer, no_layers

__all__ = ["layer", "no_layers"]
