"""Parse the names of an adapter's tensors, in every spelling in use, and describe other names.

    down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight   authors
    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight           PEFT
    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight   PEFT too
    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight        older
    lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight   kohya
    lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight             ldm

The last one counts blocks as the original code does: two layers of a level, then its downsampler.
`lycoris_` for `lora_unet_`, `diffusion_model.` and a prefix written twice occur.

Reference: diffusers `utils/state_dict_utils.py` and `loaders/lora_conversion_utils.py`.
"""

import re
from collections.abc import Collection, Sequence

from dsd_jax.io.terminal import printable
from dsd_jax.prompts.lora_files import TensorName

# Dots may be underscores, as kohya writes them; the mid block has no number.
_PREFIX = r"(?:base_model\.model\.)?(?:(?:unet|diffusion_model|lora_unet|lycoris)[._])*"
_MODULE = re.compile(
    _PREFIX
    + r"(?:(down|up)_blocks[._](\d+)[._]attentions[._](\d+)|(mid_block)[._]attentions[._]0"
    + r"|(input|output)_blocks[._](\d+)[._]1|(middle_block)[._]1)"
    + r"[._]transformer_blocks[._](\d+)"
    + r"[._](attn[12])[._](?:processor\.)?(to_q|to_k|to_v|to_out)(?:[._]0)?"
)
_PEFT = re.compile(r"\.lora_([AB])(?:\.\w+)?\.weight$")  # perhaps with the adapter's name
_PARTS = {
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}
_LEVEL = 3  # blocks of the original code on one level: two layers and what follows them
_SHOWN = 4  # names written out in an error
_MAX_LETTERS = 150  # of each
# Patterns of other files' names, and what such a file is; the first that matches any name counts.
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


def parse_name(name: str) -> TensorName | None:
    """Return the place of the tensor `name`; None if it is in no attention projection."""
    if peft := _PEFT.search(name):
        return _named(name[: peft.start()], "down" if peft[1] == "A" else "up")
    for suffix, part in _PARTS.items():
        if name.endswith(suffix) and (parsed := _named(name.removesuffix(suffix), part)):
            return parsed
    return None


def is_peft(name: str) -> bool:
    """Return whether `name` is spelled as by PEFT, which has the scale in a config beside it."""
    return _PEFT.search(name) is not None


def _named(module: str, part: str) -> TensorName | None:
    match = _MODULE.fullmatch(module)
    if match is None:
        return None
    side, number, attention, mid, ldm_side, ldm_number, ldm_mid, block, layer, projection = (
        match.groups()
    )
    if ldm_side == "input":  # the first of all is the convolution before the levels
        side, (number, attention) = "down", divmod(int(ldm_number) - 1, _LEVEL)
    elif ldm_side == "output":
        side, (number, attention) = "up", divmod(int(ldm_number), _LEVEL)
    start = "mid_block.attentions.0" if mid or ldm_mid else f"{side}_blocks.{number}.attentions."
    start += "" if mid or ldm_mid else str(attention)
    return TensorName(f"{start}.transformer_blocks.{block}.{layer}", projection, part)


def describe_foreign(foreign: Sequence[str], names: Collection[str]) -> str:
    """Return what is wrong with an adapter's file, as the end of a sentence.

    Args:
        foreign: names of the tensors that prompts have no place for.
        names: names of all tensors in the file.
    """
    if not names:
        return "is empty: it is no LoRA; expected low-rank updates of the UNet's attention"
    shown = ", ".join(printable(name)[:_MAX_LETTERS] for name in foreign[:_SHOWN])
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
    """Return the description of a file with such names; empty if nothing is known of them."""
    if any(re.search(r"\blora|_lora|lora_", name) for name in names):
        kinds = {pattern: kind for pattern, kind in _KINDS.items() if "whole" not in kind}
    else:
        kinds = _KINDS
    for pattern, kind in kinds.items():
        if any(re.match(pattern, name) for name in names):
            return kind
    return ""
