"""The random CLIP as a folder."""

from pathlib import Path

import numpy as np
import pytest

from dsd_jax.clip.clip_saving import save_clip
from tests.random_clip import random_clip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the random CLIP in float32, which a test may change."""
    save_clip(random_clip(), tmp_path / "clip", np.float32)
    return tmp_path / "clip"
