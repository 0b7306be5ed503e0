"""What the subfolders of a model tell: its parts, or that it is none that we know."""

from collections.abc import Collection

from dsd_jax.errors import UserError
from dsd_jax.models.components import Component, components

_FAMILIES = "dsd_jax reads Stable Diffusion 1.x, 2.x and SDXL"


def parts(folders: Collection[str]) -> tuple[str, ...]:
    """The subfolders that a model needs which has `folders`."""
    ours = components(folders)
    tokenizers = [component.tokenizer for component in ours if component.tokenizer]
    return (*(component.folder for component in ours), *tokenizers, "scheduler")


def refuse_others(folders: Collection[str], where: str) -> None:
    """`UserError`, which calls the model `where`, if it is one of another architecture."""
    if "unet" not in folders and "transformer" in folders:
        raise UserError(
            f"{where} has a transformer/ instead of a unet/, as Stable Diffusion 3, Flux and "
            f"PixArt have; {_FAMILIES}, whose denoisers are UNets."
        )
    if "movq" in folders:
        raise UserError(f"{where} has a movq/, as Kandinsky has; {_FAMILIES}.")
    if "unet" in folders and "text_encoder_2" in folders and "text_encoder" not in folders:
        raise UserError(
            f"{where} has a text_encoder_2/ and no text_encoder/: it is SDXL's refiner, which only "
            "finishes what the base model has drawn; use the base model, such as "
            "stabilityai/stable-diffusion-xl-base-1.0."
        )


def checked_components(folders: Collection[str], where: str) -> tuple[Component, ...]:
    """The components of the model that has `folders`; `UserError` as `refuse_others`."""
    refuse_others(folders, where)
    return components(folders)
