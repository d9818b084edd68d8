"""Decoupled mode: the edge holds the sockets, workers run the consumers.

messages           what edge and worker say to each other: one table
transport          carries it between two processes: in order, none lost, none twice; over
                   `socket_carrier` on one machine, else over `inbox_carrier`
edge               the ASGI application of the server that holds the sockets
edge_connection    one connection there; `edge_socket` is its client's side, `backlog` keeps what no
                   worker has acknowledged, `credit` counts what the client's socket has taken
offers             connections that wait for a worker
worker             claims connections and runs the application for them
worker_connection  one connection there; `consumer_state` encodes what is handed over
"""
