"""When learning stops and what is kept of it, from losses alone."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest

from dsd_jax import held_out

RECIPE = SimpleNamespace(steps=7, check_every=3, patience=2)
ZERO = np.array([1.0, 2.0, 3.0], np.float32)


class Course(NamedTuple):
    best: Any
    best_check: Any
    held_out: np.ndarray


def course_after(*losses):
    """A course whose checks had so much lower losses for every item; and what was said of them."""
    course, said = Course("start", np.asarray(0), held_out.first_losses(ZERO, 7, 3)), []
    for step, gain in zip((3, 6, 7), losses, strict=False):
        course, *rest = held_out.look(course, step, ZERO - gain, np.asarray(step), RECIPE)
        said.append(rest)
    return course, said


def test_checks_and_what_is_ahead():
    course, said = course_after(0.5)
    assert course.held_out.shape == (4, 3) and np.isnan(course.held_out[2:]).all()
    assert held_out.verdict(course, RECIPE) == ({0: 2.0, 3: 1.5}, 3)
    assert said == [[False, 1.5]]


def test_the_last_check_is_at_the_last_step():
    course, _ = course_after(0.1, 0.2, 0.9)
    checks, kept = held_out.verdict(course, RECIPE)
    assert list(checks) == [0, 3, 6, 7] and kept == 7 and course.best == 7


def test_patience_counts_from_the_best_check():
    _, said = course_after(0.5, 0.4, 0.3)
    assert [stop for stop, _ in said] == [False, False, True]
    assert course_after(0.5, 0.4)[0].best == 3


@pytest.mark.parametrize("gain", [-0.5, 0.0, np.array([0.9, -0.4, -0.4], np.float32)])
def test_nothing_is_kept_that_gains_no_more_than_its_error(gain):
    course, _ = course_after(gain)
    assert held_out.verdict(course, RECIPE)[1] == 0
