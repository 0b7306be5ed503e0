"""The bundled model: PyTorch draws the same from its files, and a pair's scores are its own."""

from functools import partial
from importlib.resources import files

import jax
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import dsd_jax
from dsd_jax.config.score_spec import METHODS
from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.vae import AutoencoderKL

TOLERANCE = 1e-4
OWN = 1e-5  # by how little a pair's score may change with its company
CAPTIONS = ["a cat to the left of a red apple", "a dog above a tree", "a small fish"]


@pytest.fixture(scope="module")
def ours():
    return dsd_jax.load("tiny")


@pytest.fixture(scope="module")
def theirs():
    folder = str(files("dsd_jax") / "assets" / "tiny")
    return StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)


@pytest.fixture(scope="module")
def pictures(ours):
    """Smooth blobs of colour, nearer to pictures than noise is."""
    rng = np.random.default_rng(0)
    size = (ours.image_size, ours.image_size)
    return [
        np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BICUBIC))
        for x in rng.integers(0, 256, (3, 6, 6, 3), np.uint8)
    ]


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def assert_same(theirs, ours):
    theirs = theirs.detach().numpy()
    theirs = np.moveaxis(theirs, 1, -1) if theirs.ndim == 4 else theirs
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_pytorch_computes_the_same(ours, theirs, pictures):
    ids = theirs.tokenizer(CAPTIONS, padding="max_length", max_length=77)["input_ids"]
    np.testing.assert_array_equal(tokenize(ours.tokenizer, CAPTIONS), ids)
    states = ours.encode_texts(CAPTIONS)
    assert_same(theirs.text_encoder(torch.tensor(ids)).last_hidden_state, states)
    mean, logvar = ours.encode_images(pictures)
    posterior = theirs.vae.encode(nchw(np.stack(pictures)) / 127.5 - 1).latent_dist
    assert_same(posterior.mean, mean)
    assert_same(posterior.logvar, logvar)
    latents, steps = ours.latents(pictures), np.array([20, 500, 980])
    predict = jax.jit(partial(UNet2DCondition(ours.unet).apply, {"params": ours.params["unet"]}))
    their_states = torch.tensor(np.asarray(states))
    expected = theirs.unet(nchw(latents), torch.from_numpy(steps), their_states).sample
    assert_same(expected, predict(latents, steps, states[:, None])[0])
    decode = jax.jit(partial(AutoencoderKL(ours.vae).apply, method="decode"))
    assert_same(theirs.vae.decode(nchw(mean)).sample, decode({"params": ours.params["vae"]}, mean))


def test_pytorch_draws_with_it(ours, theirs):
    theirs.set_progress_bar_config(disable=True)
    picture = theirs(CAPTIONS[0], num_inference_steps=2, output_type="np").images
    assert picture.shape == (1, ours.image_size, ours.image_size, 3) and np.isfinite(picture).all()


@pytest.mark.parametrize("method", METHODS)
def test_scores_do_not_depend_on_company_or_chunk(ours, pictures, method):
    score = partial(dsd_jax.match_scores, ours, method=method, timesteps=4, seed=1)
    scores = score(pictures, CAPTIONS)
    parts = {
        chunk: np.array(
            [[score([p], [c], chunk=chunk).item() for c in CAPTIONS[:2]] for p in pictures[:2]]
        )
        for chunk in (2, None)
    }
    tolerance = OWN
    if method in ("noise", "itm"):  # float32 has seven digits of a squared norm
        tolerance = 1e-6 * np.prod(ours.latent_shape)
    for alone in parts.values():
        np.testing.assert_allclose(alone, scores[:2, :2], rtol=0, atol=tolerance)
