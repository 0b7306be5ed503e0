import pytest

from dsd_jax.data.dataset import MAX_KINDS, Row, kind_counts, to_examples


def rows(kinds):
    return [Row((f"caption {i}",), (i, -i), kind, i // 2) for i, kind in enumerate(kinds)]


def test_columns_in_order():
    def read(key, size):
        return None

    examples = to_examples(iter(rows(["b", "a", "b"])), read)
    assert examples.captions == [("caption 0",), ("caption 1",), ("caption 2",)]
    assert examples.pictures == [(0, 0), (1, -1), (2, -2)] and examples.read is read
    assert examples.kinds == ["b", "a", "b"] and examples.clusters == [0, 0, 1]
    assert list(kind_counts(examples).items()) == [("b", 2), ("a", 1)]


@pytest.mark.parametrize("kinds", [["a", "", "a"], ["a", None], map(str, range(MAX_KINDS + 1))])
def test_kinds_that_tell_nothing_are_one(kinds):
    assert set(to_examples(rows(kinds), None).kinds) == {"all"}


def test_many_kinds_are_kept_up_to_a_limit():
    assert len(kind_counts(to_examples(rows(map(str, range(MAX_KINDS))), None))) == MAX_KINDS


def test_no_rows_are_no_items():
    assert to_examples([], None).count == 0
