"""Programs that some releases of jaxlib compile wrongly: none that we allow may be among them."""

import jax
import jax.numpy as jnp
import numpy as np


def test_sums_of_squares_of_vmapped_products():
    """jaxlib 0.10.2 returns another sum on CPUs, without a word (jax-ml/jax#39103).

    It takes more than 32,768 rows of float32. Scores are such sums: errors of many latents.
    """
    matrix = jnp.eye(3)
    rows = jnp.zeros((32_769, 3)).at[:, 0].set(jnp.arange(32_769.0))

    def squares(rows: jax.Array) -> jax.Array:
        return jax.vmap(lambda row: jnp.sum((matrix @ row) ** 2))(rows)

    expected = np.arange(32_769.0) ** 2  # powers of two and sums of few of them: exact to float32
    np.testing.assert_allclose(jax.jit(squares)(rows), expected, rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(squares)(rows)[-1], 2.0**30)
