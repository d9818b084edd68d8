"""Black-box tests: what a hostile or broken peer sends, and the one answer that is right.

The tables are written from the RFCs, not from the server.  `HOSTILE_SERVER=uvicorn pytest
tests/hostile` runs the same rows against uvicorn, to test the harness itself: the rows that fail
there are its known faults.
"""
