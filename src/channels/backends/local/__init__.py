"""The local layer: processes of one machine and user share groups and queues without a broker.

protocol      what goes over the socket
connection    the socket itself, and a process's end of it
place         where the processes meet: a directory of this user's, its lock, its socket
peer          the hub's end: one process, as the hub sees it
switchboard   what the hub does with a message; no socket, no clock
server        the hub's thread
handover      what a hub leaves to the next one
transport     the layer's transport: finds the hub, or becomes it
exit          the end of the interpreter
layer         `LocalChannelLayer`
"""
