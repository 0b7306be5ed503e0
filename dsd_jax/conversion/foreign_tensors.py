"""What files turn out to be that hold no LoRA of the UNet's attention, by their tensors' names."""

import re
from collections.abc import Collection, Sequence

from dsd_jax.io.terminal import printable

_SHOWN = 4  # names written out in an error
_LONGEST = 150  # characters of each
# The first that matches any name says what a file is.
_KINDS = {
    r"(model\.diffusion_model|cond_stage_model|first_stage_model|conditioner\.embedders)\.": (
        "is a whole Stable Diffusion in one file; make a folder of it, with diffusers' "
        "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder), and give that"
    ),
    r"(control_model\.|controlnet_|.*controlnet_cond_embedding)": "is a ControlNet",
    r"(emb_params|string_to_param|clip_[lg]$|<[^>]+>$)": "is a textual inversion, learned tokens",
    r".*(hada_w|lokr_w|oft_blocks|oft_diag|lora_mid)": "is an adapter of LyCORIS other than LoRA",
    r".*(dora_scale|lora_magnitude_vector)": "is a DoRA, whose updates depend on weights' norms",
    r"(lora_unet_(double|single)_blocks|transformer\.|(diffusion_model\.)?double_blocks)": (
        "is for a transformer, such as Flux or Stable Diffusion 3"
    ),
    r"(image_proj|ip_adapter)\.": "is an IP-Adapter",
    r"(lora_te\d?_|text_encoder(_\d)?\.)": "has updates of a text encoder",
    r"((down|up)_blocks\.\d+|mid_block|conv_in|time_embedding)\..*(weight|bias)$": (
        "has whole weights of a UNet; give the model's folder, which has unet/ and others"
    ),
}


def describe(foreign: Sequence[str], names: Collection[str]) -> str:
    """Return what is wrong with a file whose tensors are `names`, the end of a sentence.

    Args:
        foreign: names of those tensors that prompts have no place for.
        names: of all its tensors.
    """
    if not names:
        return "is empty: it is no LoRA; expected low-rank updates of the UNet's attention"
    shown = ", ".join(printable(name)[:_LONGEST] for name in foreign[:_SHOWN])
    more = f" and {len(foreign) - _SHOWN} more" if len(foreign) > _SHOWN else ""
    kind = _kind(foreign)
    if "give" in kind:
        return f"{kind}: {shown}{more}"
    if len(foreign) < len(names):
        kind = f"has {len(foreign)} of {len(names)} tensors that prompts have no place for"
    return (
        f"{kind or 'is no LoRA that we know'}: {shown}{more}; expected low-rank updates of the "
        "UNet's attention projections alone (target_modules to_q, to_k, to_v, to_out.0)"
    )


def _kind(names: Sequence[str]) -> str:
    """Return what the names are of; empty where nothing is known of them."""
    if any(re.search(r"\blora|_lora|lora_", name) for name in names):
        whole = [kind for kind in _KINDS if "whole" not in _KINDS[kind]]
    else:
        whole = list(_KINDS)
    for pattern in whole:
        if any(re.match(pattern, name) for name in names):
            return _KINDS[pattern]
    return ""
