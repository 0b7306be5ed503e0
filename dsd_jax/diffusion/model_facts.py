"""Facts about a loaded model and its devices in words, for banners."""

import jax

from dsd_jax.diffusion.pipeline import Model


def model_fact(model: Model) -> str:
    """Return what a model was loaded from, its family, its number of params and its images' side.

    Such as "tiny: Stable Diffusion, 11.4 M parameters, images of 64x64".
    """
    count = sum(x.size for x in jax.tree.leaves(model.params))
    size = f"{count / 1e9:.2f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
    side = model.image_size
    return f"{model.name}: {family(model)}, {size} parameters, images of {side}x{side}"


def family(model: Model) -> str:
    """Return the family that a model is of, by its parts: its files do not say."""
    if model.text_2 is not None:
        return "Stable Diffusion XL"
    width = model.text.hidden_size  # of CLIP ViT-L, and of OpenCLIP ViT-H
    return "Stable Diffusion" + {768: " 1.x", 1024: " 2.x"}.get(width, "")


def device_fact(dtype: str) -> str:
    """Return the number and kind of all devices, the hosts if there are several, and the dtype."""
    hosts = jax.process_count()
    on = f" on {hosts} hosts" if hosts > 1 else ""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}{on}, {dtype}"
