"""What is saved is what is loaded, and a file that is there is replaced whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.clip.clip_loading import load_clip
from dsd_jax.clip.clip_saving import save_clip
from dsd_jax.errors import UserError
from tests.random_clip import random_clip


def test_round_trip(tmp_path):
    clip = random_clip()
    save_clip(clip, tmp_path)
    found = load_clip(tmp_path)
    assert (found.config, found.normalise) == (clip.config, clip.normalise)
    assert found.tokenize(["a cat"]).tolist() == clip.tokenize(["a cat"]).tolist()
    jax.tree.map(
        lambda a, b: np.testing.assert_array_equal(a, np.asarray(b).astype(np.float16)),
        found.params,
        clip.params,
    )


def test_what_does_not_fit_leaves_the_folder_as_it_was(folder):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    clip = random_clip()
    clip.params["visual_projection"]["kernel"] = jnp.full((12, 8), 1e6)
    with pytest.raises(UserError, match="visual_projection/kernel holds numbers that are not fin"):
        save_clip(clip, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_other_files_stay(folder):
    (folder / "README.md").write_text("mine")
    save_clip(random_clip(), folder)
    assert (folder / "README.md").read_text() == "mine"
    assert not list(folder.glob(".unfinished-*"))
