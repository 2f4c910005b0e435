"""Pieces of text: whole characters, the same text as all at once, nothing of a stop string."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from services.triton.backends.openvino_generation.text import Characters, Stops


def bytes_decoder(ids: Sequence[int]) -> str:
    """A byte is a token, as in byte-level vocabularies at their worst."""
    return bytes(ids).decode(errors="replace")


def words_decoder(ids: Sequence[int]) -> str:
    """Words with spaces between them alone, as sentencepiece decodes."""
    return " ".join(f"w{i}" for i in ids)


@given(st.text())
def test_characters_come_whole_however_many_tokens_they_take(text: str) -> None:
    characters = Characters(bytes_decoder)
    pieces = [characters.push(byte) for byte in text.encode()]
    assert "".join(pieces) + characters.flush() == text
    assert all(len(piece) <= 1 for piece in pieces)


@given(st.binary())
def test_bytes_that_are_no_text_show_as_the_decoder_shows_them(data: bytes) -> None:
    characters = Characters(bytes_decoder)
    pieces = [characters.push(byte) for byte in data]
    assert "".join(pieces) + characters.flush() == bytes_decoder(list(data))


@given(st.lists(st.integers(0, 9)))
def test_a_decoder_that_looks_at_neighbours_gives_the_same_text(ids: list[int]) -> None:
    characters = Characters(words_decoder)
    pieces = [characters.push(token) for token in ids]
    assert "".join(pieces) + characters.flush() == words_decoder(ids)


letters = st.text("abc", max_size=12)


@given(st.lists(letters), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_the_text_ends_before_the_first_stop_string(parts: list[str], strings: list[str]) -> None:
    whole = "".join(parts)
    stops = Stops(strings)
    said = "".join(stops.push(part) for part in parts) + stops.flush()
    places = [whole.find(s) for s in strings if s in whole]
    assert stops.stopped == bool(places)
    if not places:
        assert said == whole
    else:
        # Which of two that overlap comes first depends on how the text was cut; none is ever shown.
        assert whole.startswith(said)
        assert len(said) >= min(places)
        assert not any(s in said for s in strings)


@given(letters, st.text("abc", min_size=1, max_size=4))
def test_only_what_may_begin_a_stop_string_is_held_back(text: str, string: str) -> None:
    stops = Stops([string])
    said = stops.push(text)
    if not stops.stopped:
        held = text[len(said) :]
        assert string.startswith(held)
        assert stops.flush() == held


def test_a_stop_string_may_be_part_of_the_text() -> None:
    stops = Stops(["END"], include=True)
    assert [stops.push(part) for part in ("one E", "ND two", "three")] == ["one ", "END", ""]
    assert stops.flush() == ""
