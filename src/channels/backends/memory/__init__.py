"""The in-memory layer: one process, and the state that the local layer's hub keeps too.

queue     one queue: unread envelopes, readers, what is held back
engine    queues, leases, delays and groups of queues; no loop, no thread
layer     `InMemoryChannelLayer`
"""
