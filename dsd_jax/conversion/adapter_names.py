"""What an adapter calls its tensors: every spelling in use leads to a layer, projection and part.

    down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight   authors
    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight           PEFT
    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora.down.weight        older
    lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight   kohya

Reference: diffusers `utils/state_dict_utils.py` and `loaders/lora_conversion_utils.py`.
"""

import re
from typing import NamedTuple

# Dots may be underscores, as kohya writes them; the mid block has no number.
_MODULE = re.compile(
    r"(?:base_model\.model\.)?(?:unet\.|lora_unet_)?"
    r"(?:(down|up)_blocks[._](\d+)|mid_block)[._]attentions[._](\d+)[._]transformer_blocks[._](\d+)"
    r"[._](attn[12])[._](?:processor\.)?(to_q|to_k|to_v|to_out)(?:[._]0)?"
)
_PARTS = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
    ".alpha": "alpha",
}


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
    for suffix, part in _PARTS.items():
        if name.endswith(suffix) and (found := _MODULE.fullmatch(name.removesuffix(suffix))):
            side, number, attention, block, layer, projection = found.groups()
            start = f"{side}_blocks.{number}" if side else "mid_block"
            path = f"{start}.attentions.{attention}.transformer_blocks.{block}.{layer}"
            return Name(path, projection, part)
    return None
