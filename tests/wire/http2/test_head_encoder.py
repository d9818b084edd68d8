"""What the library's decoder makes of our field sections."""

from __future__ import annotations

from hpack import Decoder
from hypothesis import given
from hypothesis import strategies as st

from channels.wire.http2 import head_encoder
from channels.wire.http2.head_encoder import HeadEncoder

FIELDS = [
    (b":status", b"200"),
    (b":status", b"299"),
    (b"content-type", b"text/plain"),
    (b"x-own", b"a" * 126),
    (b"x-own", b"b" * 127),
    (b"x-own", b"c" * 300),
    (b"set-cookie", b""),
    (b"n" * 200, b"\xff"),
]


def test_a_decoder_reads_them_again_and_again() -> None:
    encoder, decoder = HeadEncoder(), Decoder()
    for _ in range(3):
        assert [tuple(pair) for pair in decoder.decode(encoder.encode(FIELDS), raw=True)] == FIELDS


def test_a_decoder_with_no_table_reads_them() -> None:
    decoder = Decoder()
    decoder.max_allowed_table_size = 0
    assert decoder.decode(HeadEncoder().encode(FIELDS), raw=True)


def test_known_fields_are_short() -> None:
    encoder = HeadEncoder()
    encoder.encode([])
    assert encoder.encode([(b":status", b"200")]) == b"\x88"
    assert encoder.encode([(b"date", b"x")]) == b"\x0f\x12\x01x"


def test_what_is_kept_is_bounded() -> None:
    encoder, decoder = HeadEncoder(), Decoder()
    for number in range(3000):
        fields = [(b":status", b"200"), (b"date", b"%d" % number)]
        assert [tuple(pair) for pair in decoder.decode(encoder.encode(fields), raw=True)] == fields
        assert len(head_encoder._encoded) <= head_encoder._MOST_ENCODED


@given(st.lists(st.tuples(st.binary(min_size=1), st.binary(max_size=20_000))))
def test_any_field(fields: list[tuple[bytes, bytes]]) -> None:
    decoder = Decoder(max_header_list_size=2**31)
    decoded = decoder.decode(HeadEncoder().encode(fields), raw=True)
    assert [tuple(pair) for pair in decoded] == fields
