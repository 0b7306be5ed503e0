"""Checks of captions against scenes, with a grammar of the tests' own."""

import re

import numpy as np
import pytest

from dsd_jax.data.synthetic.sprites import load_sprites

CAPTION = re.compile(
    r"an? (?:(?P<size0>small|big) )?(?P<thing0>[a-z ]+?)"
    r"(?: (?P<relation>to the left of|to the right of|above|below)"
    r" an? (?:(?P<size1>small|big) )?(?P<thing1>[a-z ]+?))?"
    r"(?: on a (?P<color>[a-z]+) background)?"
)
SIZES = {"small": range(16, 21), "big": range(30, 35)}
COLORS = {
    "white": (245, 245, 245), "grey": (155, 155, 160), "red": (222, 95, 90),
    "yellow": (245, 220, 90), "green": (130, 200, 125), "blue": (115, 160, 230),
    "purple": (165, 115, 210), "pink": (248, 180, 212),
}  # fmt: skip


@pytest.fixture(scope="session")
def sprites():
    return load_sprites()


@pytest.fixture(scope="session")
def failed_claims():
    """Return `failed_claims(text, scene, image, concepts)`, the kinds of claim that aren't true."""
    return find_failed_claims


def claims(text):
    match = CAPTION.fullmatch(text)
    assert match, text
    return match.groupdict()


def find_failed_claims(text, scene, image, concepts):
    said, failed = claims(text), set()
    things = {concepts[thing.concept]: thing for thing in scene.things}
    named = [said["thing0"], said["thing1"]]
    for i, kind in enumerate(("subject", "object")):
        if named[i] and named[i] not in things:
            failed.add(kind)
        elif said[f"size{i}"] and things[named[i]].size not in SIZES[said[f"size{i}"]]:
            failed.add("size")
    both = said["relation"] and not failed & {"subject", "object"}
    if both and not holds(said["relation"], *(things[name] for name in named)):
        failed.add("relation")
    if said["color"] and nearest_color(image, scene) != said["color"]:
        failed.add("background")
    return failed


def holds(relation, first, second):
    x = (first.left + first.size / 2) - (second.left + second.size / 2)
    y = (first.top + first.size / 2) - (second.top + second.size / 2)
    along, across = (x, y) if relation.startswith("to the") else (y, x)
    if relation in ("to the left of", "above"):
        along = -along
    return along >= 0.75 * (first.size + second.size) / 2 and abs(across) <= 0.5 * along


def nearest_color(image, scene):
    """Return the color that is nearest to the mean of the pixels outside all things' squares."""
    ground = np.ones(image.shape[:2], bool)
    for thing in scene.things:
        ground[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size] = False
    mean = image[ground].mean(0)
    return min(COLORS, key=lambda name: np.abs(mean - COLORS[name]).sum())
