"""Lookup: every text finds its row and no other, even where hashes are equal."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rsir_core.search.hash_index import HashIndex, hashes_of

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def fnv1a(text: str) -> int:
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


@pytest.mark.parametrize(
    ("text", "known"),  # as published with the algorithm
    [("", 0xCBF29CE484222325), ("a", 0xAF63DC4C8601EC8C), ("foobar", 0x85944171F73967E8)],
)
def test_hashes_are_fnv_1a(text: str, known: int) -> None:
    assert hashes_of(pa.array([text])).tolist() == [known] == [fnv1a(text)]


@given(st.lists(texts, max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_hashes_do_not_depend_on_how_a_column_is_stored(found: list[str], first: int, size: int) -> None:
    expected = [fnv1a(text) for text in found]
    for kind in (pa.string(), pa.large_string(), pa.string_view()):
        array = pa.array(found, kind)
        assert hashes_of(array).tolist() == expected
        assert hashes_of(array.slice(first, size)).tolist() == expected[first : first + size]
        chunked = pa.chunked_array([array.slice(0, first), array.slice(first)], kind)
        assert hashes_of(chunked).tolist() == expected
    assert hashes_of(pa.chunked_array([], pa.string())).tolist() == []


@given(st.lists(texts, max_size=20), texts)
def test_a_text_is_found_where_it_is(column: list[str], other: str) -> None:
    lookup = HashIndex(hashes_of(pa.array(column, pa.string())))
    for text in [*column, other, other + "é"]:
        row = lookup.find(text, lambda row, text=text: column[row] == text)  # type: ignore[misc]
        assert (row is not None and column[row] == text) if text in column else row is None


@given(st.permutations(["forest/é", "", "a", "b", "c", "c"]), st.integers(1, 6))
def test_texts_of_one_hash_are_told_apart(column: list[str], same: int) -> None:
    hashes = hashes_of(pa.array(column))
    hashes[:same] = fnv1a("forest/é")  # as if all of these had this hash by chance
    lookup, asked = HashIndex(hashes), list[int]()

    def is_it(row: int) -> bool:
        asked.append(row)
        return column[row] == "forest/é"

    row = lookup.find("forest/é", is_it)
    assert row == column.index("forest/é")
    assert set(asked) <= {*range(same), row}


def test_a_hash_without_its_text_finds_nothing() -> None:
    lookup = HashIndex(hashes_of(pa.array(["a", "b"])))
    assert lookup.find("a", lambda row: False) is None
    assert HashIndex(np.empty(0, np.uint64)).find("a", lambda row: True) is None
