"""The proxy of the chaos tests, which ships with the conformance suite."""

from channels.testing.proxy import Address, ChaosProxy

__all__ = ["Address", "ChaosProxy"]
