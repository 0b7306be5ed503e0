"""Text for a terminal."""

import io

from tqdm import tqdm

from dsd_jax.io.terminal import advance


def test_a_bar_never_passes_its_total():
    with tqdm(total=100, file=io.StringIO()) as bar:
        for _ in range(3):
            advance(bar, 33.4)
        assert bar.n == 100
        advance(bar, -1.0)
        assert bar.n == 100
