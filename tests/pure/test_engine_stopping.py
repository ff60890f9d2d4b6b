"""Stop strings: the cut does not depend on how a text arrives, and no text is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quipu.engine.stopping import StopMatcher


def cut(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    """What comes out of a matcher, and whether a stop string was found."""
    matcher = StopMatcher(stops)
    text = "".join(matcher.append(piece) for piece in pieces)
    return text + matcher.flush(), matcher.stopped


def split(text: str, borders: list[int]) -> list[str]:
    places = sorted({border % (len(text) + 1) for border in borders})
    return [text[begin:end] for begin, end in zip([0, *places], [*places, len(text)], strict=True)]


letters = st.text(alphabet="abc", max_size=30)
stop_lists = st.lists(st.text(alphabet="abc", min_size=1, max_size=6), max_size=4)


@settings(deadline=None)
@given(letters, stop_lists, st.lists(st.integers(0, 100), max_size=12))
def test_pieces_do_not_matter(text: str, stops: list[str], borders: list[int]) -> None:
    one_by_one = cut(list(text), stops)
    assert cut(split(text, borders), stops) == one_by_one == cut([text], stops)
    assert text.startswith(one_by_one[0])
    if not any(stop in text for stop in stops):
        assert one_by_one == (text, False)


@settings(deadline=None)
@given(letters, st.text(alphabet="abc", min_size=1, max_size=6), st.lists(st.integers(0, 100), max_size=12))
def test_one_stop_string_cuts_where_it_begins(text: str, stop: str, borders: list[int]) -> None:
    before, found, _ = text.partition(stop)
    assert cut(split(text, borders), [stop]) == (before, bool(found))


@settings(deadline=None)
@given(letters, stop_lists)
def test_the_first_to_be_complete_counts(text: str, stops: list[str]) -> None:
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert cut([text], stops) == ((text[: min(ends)[1]], True) if ends else (text, False))


@settings(deadline=None)
@given(st.text(alphabet="ab", max_size=200), st.lists(st.text(alphabet="ab", min_size=1, max_size=40), max_size=6))
def test_what_is_held_back_is_the_longest_beginning(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    came = matcher.append(text)
    if not matcher.stopped:
        starts = [
            i
            for i in range(len(text))
            if any(len(stop) > len(text) - i and stop.startswith(text[i:]) for stop in stops)
        ]
        assert came == text[: min(starts, default=len(text))]


@settings(deadline=None)
@given(letters, stop_lists, st.lists(st.integers(0, 100), max_size=12))
def test_text_comes_as_soon_as_it_is_certain(text: str, stops: list[str], borders: list[int]) -> None:
    matcher = StopMatcher(stops)
    longest = max(map(len, stops), default=1)
    came = arrived = 0
    for piece in split(text, borders):
        arrived += len(piece)
        came += len(matcher.append(piece))
        if matcher.stopped:
            break
        assert arrived - came < longest


@pytest.mark.parametrize(
    ("pieces", "stops", "expected"),
    [
        (["Hello wor", "ld"], ["world"], ("Hello ", True)),
        (["abcd"], ["abcd", "bc"], ("a", True)),  # "bc" is complete first
        (["xabc"], ["c", "abc"], ("x", True)),  # together: the longer one
        (["aab"], ["ab"], ("a", True)),
        (["ab", "ab"], ["abc"], ("abab", False)),
        (["é", "\n", "\n", "x"], ["\n\n"], ("é", True)),
        (["x"], [], ("x", False)),
    ],
)
def test_cases(pieces: list[str], stops: list[str], expected: tuple[str, bool]) -> None:
    assert cut(pieces, stops) == expected


def test_nothing_follows_a_stop() -> None:
    matcher = StopMatcher(["b"])
    assert matcher.append("ab") == "a"
    assert matcher.append("more") == ""
    assert matcher.flush() == ""
