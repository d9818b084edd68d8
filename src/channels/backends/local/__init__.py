"""The local layer: processes of one machine and user share groups and queues without a broker.

protocol      what goes over the socket
place         where the processes meet: a directory of this user's, its lock, its socket
peer          one process, as the hub sees it
switchboard   what the hub does with a message; no socket, no clock
server        the hub's thread
handover      what a hub leaves to the next one
connection    the socket of a process to the hub
transport     the layer's transport: finds the hub, or becomes it
exit          the end of the interpreter
layer         `LocalChannelLayer`
"""
