"""The in-memory layer: one process, and the state that the local layer's hub keeps too.

engine    queues, groups and inboxes as state machines; no loop, no thread
holding   what waits for its time: delayed messages and leases
layer     `InMemoryChannelLayer`
"""
