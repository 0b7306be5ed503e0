"""What an adapter calls its tensors: every spelling in use leads to a layer, projection and part.

    down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight   authors
    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight           PEFT
    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight   PEFT too
    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight        older
    lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight   kohya
    lora_unet_input_blocks_1_1_transformer_blocks_0_attn1_to_q.lora_down.weight             ldm

The last have the numbers of the original code, where a level's two layers and its downsampler are
counted through. `lycoris_` for `lora_unet_`, `diffusion_model.` and a prefix written twice occur.

Reference: diffusers `utils/state_dict_utils.py` and `loaders/lora_conversion_utils.py`.
"""

import re
from typing import NamedTuple

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
_LEVEL = 3  # the original code's numbers on one level: two layers and what follows them


class Name(NamedTuple):
    """One tensor: of an attention layer's projection (`to_q`, `to_k`, `to_v`, `to_out`), its part.

    The part is `down`, `up` or `alpha`, which kohya writes for each projection.
    """

    path: str
    projection: str
    part: str

    @property
    def module(self) -> str:
        """The projection's module path in diffusers."""
        return f"{self.path}.{self.projection}{'.0' if self.projection == 'to_out' else ''}"

    @property
    def authors(self) -> str:
        """As the authors' code calls it."""
        return f"{self.path}.processor.{self.projection}_lora.{self.part}.weight"

    @property
    def diffusers(self) -> str:
        """As diffusers' pipelines and PEFT call it today."""
        return f"unet.{self.module}.lora_{'A' if self.part == 'down' else 'B'}.weight"


def parse(name: str) -> Name | None:
    """What `name` is in an adapter; None if it is of no attention projection of the UNet."""
    if peft := _PEFT.search(name):
        return _named(name[: peft.start()], "down" if peft[1] == "A" else "up")
    for suffix, part in _PARTS.items():
        if name.endswith(suffix) and (found := _named(name.removesuffix(suffix), part)):
            return found
    return None


def is_peft(name: str) -> bool:
    """Whether `name` is spelled as PEFT does, whose scale is in a config beside the tensors."""
    return _PEFT.search(name) is not None


def _named(module: str, part: str) -> Name | None:
    found = _MODULE.fullmatch(module)
    if found is None:
        return None
    side, number, attention, mid, ldm_side, ldm_number, ldm_mid, block, layer, projection = (
        found.groups()
    )
    if ldm_side == "input":  # the first of all is the convolution before the levels
        side, (number, attention) = "down", divmod(int(ldm_number) - 1, _LEVEL)
    elif ldm_side == "output":
        side, (number, attention) = "up", divmod(int(ldm_number), _LEVEL)
    start = "mid_block.attentions.0" if mid or ldm_mid else f"{side}_blocks.{number}.attentions."
    start += "" if mid or ldm_mid else str(attention)
    return Name(f"{start}.transformer_blocks.{block}.{layer}", projection, part)
