"""CLIPs of several shapes, random, with PyTorch transformers as the judge.

Each is written by `save_pretrained` and read by `load_clip`.
"""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from dsd_jax.clip.clip_files import BUNDLED, load_clip
from tests.random_clip import TOKENIZER

TOLERANCE = 1e-4
CAPTIONS = ["a cat to the left of a big apple", "a dog", "a small fish above a key"]
TEXT = {"vocab_size": 908, "bos_token_id": 906, "pad_token_id": 907, "num_hidden_layers": 2}
SHAPES = {
    # As OpenAI's: quick_gelu, and an end token that is not the tokenizer's.
    "openai": {
        "text_config": TEXT
        | {"hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 3, "eos_token_id": 2},
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 8,
        },
        "projection_dim": 20,
    },
    # As LAION's: exact gelu; another size of patch, the tokenizer's end token, fewer positions.
    "laion": {
        "text_config": TEXT
        | {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "eos_token_id": 907,
            "hidden_act": "gelu",
            "max_position_embeddings": 20,
        },
        "vision_config": {
            "hidden_size": 24,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 3,
            "image_size": 20,
            "patch_size": 4,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-6,
        },
        "projection_dim": 12,
    },
}


@pytest.fixture(scope="module", params=SHAPES)
def pair(request, tmp_path_factory):
    """(ours, theirs) with the same weights."""
    torch.manual_seed(0)
    theirs = CLIPModel(CLIPConfig(**SHAPES[request.param])).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("clips") / request.param
    theirs.save_pretrained(folder)
    for file in TOKENIZER.iterdir():
        shutil.copy(file, folder)
    return load_clip(folder), theirs


def pictures(count, size):
    return np.random.default_rng(3).integers(0, 256, (count, size, size, 3), np.uint8)


def their_inputs(theirs, pixels, captions):
    config = theirs.config
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    length = config.text_config.max_position_embeddings
    ids = tokenizer(captions, padding="max_length", max_length=length, return_tensors="pt")
    processor = CLIPImageProcessor(do_resize=False, do_center_crop=False)
    values = processor(list(pixels), return_tensors="pt")["pixel_values"]
    return {"input_ids": ids["input_ids"], "pixel_values": values}


def test_embeddings_and_logits(pair):
    ours, theirs = pair
    pixels = pictures(5, ours.image_size)
    with torch.no_grad():
        out = theirs(**their_inputs(theirs, pixels, CAPTIONS))
    images, texts = ours.embed_images(pixels), ours.embed_texts(CAPTIONS)
    assert images.dtype == texts.dtype == jnp.float32
    np.testing.assert_allclose(images, out.image_embeds, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(texts, out.text_embeds, rtol=0, atol=TOLERANCE)
    logits = ours.logit_scale * images @ texts.T
    np.testing.assert_allclose(logits, out.logits_per_image, rtol=0, atol=10 * TOLERANCE)
    assert np.abs(np.diff(logits, axis=0)).min() > 10 * TOLERANCE  # pictures make a difference


def test_a_long_caption_is_cut_where_theirs_is(pair):
    ours, theirs = pair
    caption = "a big red cat above " * 20
    length = theirs.config.text_config.max_position_embeddings
    tokenizer = CLIPTokenizer.from_pretrained(TOKENIZER)
    ids = tokenizer([caption], truncation=True, max_length=length, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = theirs.get_text_features(ids).pooler_output
    expected = expected / expected.norm(dim=-1, keepdim=True)
    with pytest.warns(UserWarning, match=f"of which the model reads {length}"):
        found = ours.embed_texts([caption])
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_a_tower_stated_twice(tmp_path):
    """Old files have `text_config_dict` too, which goes before `text_config`, defaults included."""
    shape = SHAPES["openai"]
    stale = {"num_hidden_layers": 7, "hidden_size": 99, "hidden_act": "gelu"}
    stated = {
        "text_config": shape["text_config"] | stale,
        "text_config_dict": shape["text_config"],
        "vision_config": shape["vision_config"] | stale,
        "vision_config_dict": shape["vision_config"],
        "projection_dim": shape["projection_dim"],
        "model_type": "clip",
    }
    theirs = CLIPModel(CLIPConfig(**json.loads(json.dumps(stated)))).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(stated))
    for file in TOKENIZER.iterdir():
        shutil.copy(file, tmp_path)
    ours, pixels = load_clip(tmp_path), pictures(2, 24)
    with torch.no_grad():
        out = theirs(**their_inputs(theirs, pixels, CAPTIONS))
    np.testing.assert_allclose(ours.embed_texts(CAPTIONS), out.text_embeds, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(ours.embed_images(pixels), out.image_embeds, rtol=0, atol=TOLERANCE)


def test_the_bundled_clip_is_a_clip_model():
    ours, theirs = load_clip("tiny-clip"), CLIPModel.from_pretrained(BUNDLED).float().eval()
    pixels = pictures(3, ours.image_size)
    inputs = their_inputs(theirs, pixels, CAPTIONS)
    processor = CLIPImageProcessor.from_pretrained(BUNDLED)
    inputs["pixel_values"] = processor(list(pixels), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        out = theirs(**inputs)
    logits = ours.logit_scale * ours.embed_images(pixels) @ ours.embed_texts(CAPTIONS).T
    np.testing.assert_allclose(logits, out.logits_per_image, rtol=0, atol=1e-3)
