"""When learning stops and what is kept of it, from losses alone."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from dsd_jax.training import early_stopping

RECIPE = SimpleNamespace(steps=7, check_every=3, patience=2)
ZERO = np.arange(1.0, 7.0, dtype=np.float32)
APART = range(len(ZERO))  # every item of a cluster of its own


class Course(NamedTuple):
    best: Any
    best_check: Any
    held_out: np.ndarray


def course_after(*losses):
    """A course whose checks had so much lower losses for every item; and what was said of them."""
    course, said = Course("start", np.asarray(0), early_stopping.first_losses(ZERO, 7, 3)), []
    for step, gain in zip((3, 6, 7), losses, strict=False):
        course, *rest = early_stopping.look(course, step, ZERO - gain, np.asarray(step), RECIPE)
        said.append(rest)
    return course, said


def test_checks_and_what_is_ahead():
    course, said = course_after(0.5)
    assert course.held_out.shape == (4, 6) and np.isnan(course.held_out[2:]).all()
    assert early_stopping.verdict(course, RECIPE, APART) == ({0: 3.5, 3: 3.0}, 3)
    assert said == [[False, 3.0]]


def test_the_last_check_is_at_the_last_step():
    course, _ = course_after(0.1, 0.2, 0.9)
    checks, kept = early_stopping.verdict(course, RECIPE, APART)
    assert list(checks) == [0, 3, 6, 7] and kept == 7 and course.best == 7


def test_patience_counts_from_the_best_check():
    _, said = course_after(0.5, 0.4, 0.3)
    assert [stop for stop, _ in said] == [False, False, True]
    assert course_after(0.5, 0.4)[0].best == 3


@pytest.mark.parametrize("gain", [-0.5, 0.0, np.array([0.9, -0.4] + [0.0] * 4, np.float32)])
def test_nothing_is_kept_that_gains_no_more_than_its_error(gain):
    course, _ = course_after(gain)
    assert early_stopping.verdict(course, RECIPE, APART)[1] == 0


@pytest.mark.parametrize(
    ("gains", "clusters", "kept"),
    [
        ([1.0, 1.1, 0.9, 1.0, 1.0], range(5), True),
        ([1.0, 1.1, 0.9], range(3), False),  # three items tell nothing
        ([1.0, 1.1, 0.9, 1.0], range(4), False),
        ([-1.0, -1.1] * 4, range(8), False),
        ([8.0, *[-1.0] * 7], range(8), False),
        ([0.0] * 6, range(6), False),
        ([1.0], [0], False),
        ([1.0, 1.1, 0.9, 1.0, 1.0] * 2, [0, 1, 2, 3] * 2 + [0, 1], False),
    ],
)
def test_a_gain_exceeds_its_standard_error(gains, clusters, kept):
    assert early_stopping.is_gain(np.array(gains), clusters) == kept


def test_items_of_a_cluster_gain_together():
    """The same gains over and over make no standard error smaller."""
    gains = np.random.default_rng(0).normal(-0.05, 1.0, 50)
    assert not early_stopping.is_gain(gains, range(50))
    repeated = np.repeat(gains, 10)
    assert early_stopping.is_gain(repeated, range(500))
    assert not early_stopping.is_gain(repeated, np.repeat(np.arange(50), 10))


def test_too_few_shots_are_told():
    with pytest.warns(UserWarning, match="^lora-4-0: 4 shots hold out fewer than 5 .* 10 or more"):
        early_stopping.tell_too_few("lora-4-0", 4)
