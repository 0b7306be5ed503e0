"""Plans of calls: every pair is in one, and none is too large."""

import numpy as np
import pytest

from dsd_jax.matching.call_plan import PairCounts, even_ranges, padded_ranges, plan_calls


@pytest.mark.parametrize("rows", [1, 2, 4, 16, 33])
@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("uncond", [True, False])
@pytest.mark.parametrize(
    ("items", "images", "captions"),
    [(1, 1, 1), (1, 3, 100), (1, 50, 7), (20, 2, 1), (20, 10, 1), (3, 1, 10), (9, 1, 128)],
)
def test_calls_have_no_more_rows_than_they_may(rows, devices, uncond, items, images, captions):
    """Rows per device: fewer images than devices are computed by each of them."""
    plan = plan_calls(PairCounts(items, images, captions, 30, uncond), rows, devices)
    together = len(plan.images[0]) if items == 1 else len(plan.items[0])
    per_device = len(plan.images[0]) // (devices if together % devices == 0 else 1)
    per_device *= (len(plan.captions[0]) + uncond) * len(plan.timesteps[0])
    assert per_device <= max(rows, 1 + uncond)
    assert np.unique(np.concatenate(plan.images)).tolist() == list(range(items * images))
    for image_indices, item_indices in zip(plan.images, plan.items, strict=True):
        side_by_side = len(image_indices) // len(item_indices)
        np.testing.assert_array_equal(
            image_indices // images, np.repeat(item_indices, side_by_side)
        )


def test_ranges_have_one_size():
    assert [piece.tolist() for piece in padded_ranges(5, 2)] == [[0, 1], [2, 3], [4, 4]]
    assert [piece.tolist() for piece in padded_ranges(2, 3)] == [[0, 1, 1]]
    assert [indices.tolist() for indices in even_ranges(5, 4)] == [[0, 1, 2], [3, 4, 4]]
