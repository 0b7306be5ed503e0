"""Facts about a loaded model and its devices in words, for banners."""

import jax

from dsd_jax.diffusion.pipeline import Model, rounded_count


def model_fact(model: Model) -> str:
    """Return what a model was loaded from, its family, its number of params and its images' side.

    Such as "tiny: Stable Diffusion, 11.4 M parameters, images of 64x64".
    """
    count = rounded_count(sum(x.size for x in jax.tree.leaves(model.params)))
    side = model.image_size
    return f"{model.name}: {model.family}, {count} parameters, images of {side}x{side}"


def device_fact(dtype: str) -> str:
    """Return the number and kind of all devices, the hosts if there are several, and the dtype."""
    hosts = jax.process_count()
    on = f" on {hosts} hosts" if hosts > 1 else ""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}{on}, {dtype}"
