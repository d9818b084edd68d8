"""The window of seen envelopes against a plain set."""

from hypothesis import given
from hypothesis import strategies as st

from channels.layers.process.window import WINDOW, SeenWindow


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b"]), st.integers(1, 300)), max_size=300))
def test_within_the_window_it_is_a_set(pairs: list[tuple[bytes, int]]) -> None:
    window = SeenWindow()
    seen: set[tuple[bytes, int]] = set()
    for sender, seq in pairs:
        assert window.is_repeat(sender, seq) is ((sender, seq) in seen)
        seen.add((sender, seq))


@given(st.lists(st.integers(1, 3 * WINDOW), min_size=1, max_size=300))
def test_restored_it_knows_the_same(numbers: list[int]) -> None:
    window, other = SeenWindow(), SeenWindow()
    for seq in numbers:
        window.is_repeat(b"a", seq)
        for entry in window.entries():
            other.restore(*entry)
        assert list(other.entries()) == list(window.entries())
    highest = max(numbers)
    for seq in numbers:
        assert other.is_repeat(b"a", seq)
    for seq in set(range(highest - 50, highest)) - set(numbers):
        assert not other.is_repeat(b"a", seq)


@given(st.lists(st.integers(1, 5), max_size=400), st.data())
def test_rising_numbers_with_gaps(steps: list[int], data: st.DataObject) -> None:
    window, numbers = SeenWindow(), [1]
    for step in steps:
        numbers.append(numbers[-1] + step)
    assert not any(window.is_repeat(b"a", seq) for seq in numbers)
    for seq in data.draw(st.lists(st.integers(1, numbers[-1]), max_size=50, unique=True)):
        assert window.is_repeat(b"a", seq) is (seq in numbers)


def test_what_is_older_than_the_window_counts_as_seen() -> None:
    window = SeenWindow()
    assert not window.is_repeat(b"a", 1)
    assert not window.is_repeat(b"a", 1 + WINDOW)
    assert window.is_repeat(b"a", 1)
    assert not window.is_repeat(b"a", 2)
    assert not window.is_repeat(b"a", 10 * WINDOW)
    assert window.is_repeat(b"a", 10 * WINDOW)


def test_senders_are_bounded() -> None:
    window = SeenWindow(max_senders=2)
    for sender in (b"a", b"b", b"c"):
        assert not window.is_repeat(sender, 1)
    assert window.is_repeat(b"c", 1)
    assert not window.is_repeat(b"a", 1)
