"""Learned prompts: what they say of themselves, their files, and what refuses them."""

import numpy as np

from dsd_jax.prompts.learned_prompts import Prompts
from dsd_jax.prompts.prompt_metadata import PromptMetadata

PATH = "mid_block.attentions.0.transformer_blocks.0.attn2"
LORA = {PATH: {"to_q": {"down": np.ones((4, 2), np.float32), "up": np.ones((2, 4), np.float32)}}}
VERDICT = {"what": "LoRA", "kept": True, "gain": 0.051, "error": 0.022, "items": 12, "step": 40}
METADATA = {
    "weights": "tiny",
    "recipe": {"methods": ["relative"], "kinds": ["lora"], "steps": 60},
    "recipe_name": "adapted",
    "timesteps": [489, 989],
    "shots": 64,
    "kept_step": 40,
    "checks": {"0": 0.5, "20": 0.46, "40": 0.449, "60": 0.47},
    "verdicts": [VERDICT],
}


def prompts(**changes) -> Prompts:
    return Prompts({"lora": LORA}, PromptMetadata.model_validate(METADATA | changes))


def test_the_verdict_in_words():
    assert prompts().verdict == "kept step 40: held-out loss fell by 0.051 ± 0.022 on 12 pairs"
    refused = VERDICT | {"kept": False, "gain": 0.01}
    assert prompts(verdicts=[refused]).verdict == (
        "LoRA gained less than its error on 12 held-out pairs: not kept (held-out loss fell by "
        "0.010 ± 0.022 at step 40)"
    )


def test_saved_and_loaded_is_the_same(tmp_path):
    prompts().save(tmp_path)
    again = Prompts.load(tmp_path)
    assert again.metadata == prompts().metadata and repr(again) == repr(prompts())
    np.testing.assert_array_equal(again.params["lora"][PATH]["to_q"]["down"], 1.0)
    assert again.history.losses == {0: 0.5, 20: 0.46, 40: 0.449, 60: 0.47}
