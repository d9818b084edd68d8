"""Protocols as pure state machines: bytes in, events out; no loop, no clock, no socket."""
