"""What a server does with field sections that break RFC 7541: 8 cases."""

from __future__ import annotations

from compliance.http2.case import COMPRESSION, connection_error, numbered
from compliance.http2.generic import INDEXED, LOCALHOST, coded, text, with_block

BROKEN = connection_error(COMPRESSION)
AUTHORITY = b"\x01" + text(b"localhost")

CASES = [
    *numbered(
        "hpack/2.3.3",
        ("an index beyond both tables", with_block(INDEXED + AUTHORITY + b"\xff\x00"), BROKEN),
        (
            "a name's index beyond both tables",
            with_block(INDEXED + AUTHORITY + b"\x7f\x20" + text(b"a")),
            BROKEN,
        ),
    ),
    *numbered(
        "hpack/4.2",
        (
            "a change of the table's size at the end",
            with_block(INDEXED + AUTHORITY + b"\x20"),
            BROKEN,
        ),
    ),
    *numbered(
        "hpack/5.2",
        (
            "Huffman's code with over 7 bits of padding",
            with_block(INDEXED + b"\x01" + coded(LOCALHOST + b"\xff")),
            BROKEN,
        ),
        (
            "Huffman's code padded with zeros",
            with_block(INDEXED + b"\x01" + coded(b"\x18")),
            BROKEN,
        ),
        (
            "Huffman's code with its end inside",
            with_block(INDEXED + b"\x01" + coded(LOCALHOST + b"\xff\xff\xff\xff")),
            BROKEN,
        ),
    ),
    *numbered("hpack/6.1", ("index 0", with_block(INDEXED + AUTHORITY + b"\x80"), BROKEN)),
    *numbered(
        "hpack/6.3",
        (
            "a table of more than the setting allows",
            with_block(b"\x3f\xe2\x1f" + INDEXED + AUTHORITY),
            BROKEN,
        ),
    ),
]
