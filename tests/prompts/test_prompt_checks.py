"""Malformed prompts, and those of another model, are refused before the UNet runs."""

import jax
import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.prompts.prompt_checks import check_prompts
from dsd_jax.prompts.prompt_params import from_authors, init_lora, init_tokens
from tests.random_model import random_model

PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"
SELF = PATH.replace("attn2", "attn1")
OTHER = "down_blocks.9.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture(scope="module")
def unet():
    return random_model().unet


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


def lora(**update) -> dict:
    """Return a LoRA of one projection, valid except for `update`."""
    return {"lora": {PATH: {"to_q": {"down": zeros(8, 3), "up": zeros(3, 8)} | update}}}


def tokens(**token) -> dict:
    return {"tokens": {PATH: {"key": zeros(4, 8), "value": zeros(4, 8)} | token}}


def test_prompts_that_fit(unet):
    weights = {"lse": {PATH: zeros(2)}, "lse_uncond": {}, "timesteps": zeros(4), "error": zeros()}
    whole = {"lora": init_lora(unet, jax.random.key(0), rank=3)}
    whole |= {"tokens": init_tokens(unet, jax.random.key(0)), "weights": {"dsd": weights}}
    for prompts in (whole, lora(), tokens(), {"weights": {"itm": {"error": 0.5}}}, {"lora": {}}):
        check_prompts(prompts, unet)


def test_prompts_of_the_authors_fit(unet):
    names = {f"{PATH}.processor.to_q_lora.down.weight": zeros(3, 8)}
    names |= {f"{PATH}.processor.to_q_lora.up.weight": zeros(8, 3)}
    check_prompts(from_authors(names), unet)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ({"loras": {}}, "a kind 'loras'; expected lora, tokens, weights"),
        ({"lora": {OTHER: {}}}, f"lora for {OTHER}, a layer that this model lacks"),
        ({"lora": zeros(3)}, "lora of the prompts is no dict"),
        ({"lora": {PATH: zeros(3)}}, f"lora for {PATH} of the prompts is no dict"),
        ({"lora": {PATH: {"to_x": {}}}}, f"lora for 'to_x' of {PATH}, expected some of to_q"),
        ({"lora": {PATH: {"to_q": {"down": zeros(8, 3)}}}}, "have down in .*, expected down and"),
        ({"lora": {PATH: {"to_q": {"up": zeros(3, 8)}}}}, "have up in lora for .*, expected down"),
        (lora(down=zeros(9, 3)), r"have shape \(9, 8\), the model's layer \(8, 8\)"),
        (lora(up=zeros(3, 9)), r"have shape \(8, 9\), the model's layer \(8, 8\)"),
        (lora(up=zeros(4, 8)), r"of shapes \(8, 3\) and \(4, 8\); expected one rank"),
        (lora(down=zeros(8, 0), up=zeros(0, 8)), "expected one rank of 1 or more"),
        (lora(down=zeros(8)), r"'down' of shape \(8,\), expected a matrix"),
        (lora(up=zeros(3, 8, 1)), r"'up' of shape \(3, 8, 1\), expected a matrix"),
        (lora(up=[0.0]), "is no array"),
        (lora(alpha=zeros()), "have alpha and down and up in"),
        (tokens(key=zeros(4, 9)), r"have shape \(9,\), the model's layer \(8,\)"),
        (tokens(value=zeros(4, 9)), r"have shape \(9,\), the model's layer \(8,\)"),
        (tokens(value=zeros(3, 8)), "4 keys and 3 values of tokens .*; expected equally many"),
        (tokens(key=zeros(0, 8), value=zeros(0, 8)), "expected equally many, 1 or more"),
        ({"tokens": {SELF: {}}}, f"tokens for {SELF}, a layer that this model lacks"),
        ({"weights": {"dsd": {"lse": {OTHER: zeros(2)}}}}, f"weights for {OTHER}"),
        ({"weights": {"dsd": {"lse": {PATH: zeros(3)}}}}, r"\(3,\), the model's layer \(2,\)"),
        ({"weights": {"dsd": {"lse": zeros(2)}}}, "weights/dsd/lse of the prompts is no dict"),
        ({"weights": {"dsd": {"timesteps": zeros()}}}, r"timesteps of shape \(\), expected \(T,\)"),
        ({"weights": {"dsd": {"error": zeros(1)}}}, r"error of shape \(1,\), expected \(\)"),
        ({"weights": {"dsd": {"bias": zeros()}}}, "weights/dsd/bias, expected some of lse"),
        ({"weights": {"sdd": {}}}, "method 'sdd' is unknown"),
    ],
)
def test_prompts_of_another_model(unet, prompts, message):
    with pytest.raises(UserError, match=message):
        check_prompts(prompts, unet)
