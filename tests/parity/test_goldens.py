"""What the authors' own PyTorch code computed, reproduced through public functions.

Their pictures and rows are NCHW with `[unconditional; conditional]`; see `tests/fixtures/goldens`.
"""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch

import dsd_jax
from dsd_jax.matching import score_functions
from dsd_jax.matching.forward import cross_attention_layers
from dsd_jax.models.vae import AutoencoderKL
from dsd_jax.prompts.prompt_params import from_authors

TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3  # of each tensor's norm
# One row and its empty caption per call of the UNet: all of this file shares one compilation. The
# authors' LoRA is applied to the empty caption too.
match_terms = partial(dsd_jax.match_terms, chunk=2, prompt_empty_caption=True)


def nhwc(x):
    return np.moveaxis(x, -3, -1)


def assert_close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), theirs, rtol=0, atol=TOLERANCE)


def assert_gradient(ours, theirs):
    assert ours.shape == theirs.shape
    # The last layers' gradients are zero without the bias.
    limit = GRADIENT_TOLERANCE * np.linalg.norm(theirs) + 1e-7
    assert np.linalg.norm(ours - theirs) <= limit


def adapter(folder):
    """The authors' adapter file as arrays."""
    tensors = torch.load(folder / "lora" / "pytorch_model.bin", weights_only=True)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


@pytest.fixture(scope="module", params=["tiny-sd15", "tiny-sd21"])
def golden(request, golden_folder):
    folder = golden_folder(request.param)
    return SimpleNamespace(
        folder=folder,
        model=dsd_jax.load(folder),
        captions=[str(caption) for caption in np.load(folder / "common.npz")["captions"]],
        common=np.load(folder / "common.npz"),
        b1=np.load(folder / "golden_b1.npz"),
        b1_lora=np.load(folder / "golden_b1_lora.npz"),
        b2=np.load(folder / "golden_b2.npz"),
    )


@pytest.fixture(scope="module")
def terms_of(golden):
    """`terms_of("b1")`: ours for a golden file, one call of `match_terms` per pair."""
    done = {}

    def pairs(name):
        if name not in done:
            file = getattr(golden, name)
            prompts = from_authors(adapter(golden.folder)) if "lora" in name else None
            latents = nhwc(file["latents"])  # (T, B, h, w, channels): theirs differ with t
            done[name] = [
                match_terms(
                    golden.model,
                    latents[None, :, pair],
                    golden.captions[pair : pair + 1],
                    nhwc(file["noise"]),
                    file["timesteps"],
                    prompts=prompts,
                )
                for pair in range(latents.shape[1])
            ]
        return done[name]

    return pairs


def test_text(golden):
    ours = golden.model.encode_texts([*golden.captions, ""])
    assert_close(ours[:-1], golden.common["text_last_hidden"])
    assert_close(ours[-1:], golden.common["uncond_last_hidden"])


def test_vae(golden):
    mean, logvar = golden.model.encode_images(list(golden.common["images_u8"][:2]))
    for file in (golden.b1, golden.b2):
        assert_close(mean[: len(file["vae_mean"])], nhwc(file["vae_mean"]))
        assert_close(logvar[: len(file["vae_logvar"])], nhwc(file["vae_logvar"]))
    # Their latents are samples; what is left of them without our posterior is standard normal.
    drawn = (nhwc(golden.b2["latents"]) / golden.model.vae.scaling_factor - mean) / jnp.exp(
        logvar / 2
    )
    assert abs(drawn.mean()) < 0.05 and abs(drawn.std() - 1) < 0.05
    np.testing.assert_allclose(  # convolutions of one image and of two round differently
        golden.model.latents([golden.common["images_u8"][0]])[0],
        golden.model.vae.scaling_factor * mean[0],
        rtol=0,
        atol=1e-6,
    )


def test_decoder(golden):
    ours = AutoencoderKL(golden.model.vae).apply(
        {"params": golden.model.params["vae"]},
        jnp.asarray(nhwc(golden.common["noise_table"][:1])),
        method="decode",
    )
    theirs = golden.common["vae_decode_of_noise0"]
    assert theirs.dtype == np.float16  # that of the file is what limits the comparison
    np.testing.assert_allclose(ours, nhwc(theirs.astype(np.float32)), rtol=5e-4, atol=TOLERANCE)


def test_schedule(golden):
    schedule = golden.model.schedule
    np.testing.assert_allclose(
        schedule.alphas_cumprod(), golden.common["alphas_cumprod"], rtol=0, atol=1e-6
    )
    b2 = golden.b2
    for number, timestep in enumerate(b2["timesteps"]):
        latents, noise = nhwc(b2["latents"])[number], nhwc(b2["noise"])[number]
        noisy = schedule.add_noise(latents, np.stack([noise, noise]), np.full(2, int(timestep)))
        # Theirs are Euler's, before they are scaled back by sqrt(sigma^2 + 1).
        sigma = golden.common["sigmas"][999 - int(timestep)]
        assert_close(noisy, nhwc(b2["noisy_latents"])[number] / np.sqrt(sigma**2 + 1))
        assert_close(noisy, nhwc(b2["unet_input"])[number, :2])


def test_layers(golden):
    unet = golden.model.unet
    assert set(cross_attention_layers(unet)) == {str(x) for x in golden.common["layer_names"]}
    assert set(score_functions.chosen_layers(unet)) == {
        str(x) for x in golden.common["selected_layers"]
    }


@pytest.mark.parametrize("name", ["b1", "b1_lora", "b2"])
def test_scores_of_every_layer(golden, terms_of, name):
    file, layers = getattr(golden, name), cross_attention_layers(golden.model.unet)
    pairs = len(terms_of(name))
    for pair, terms in enumerate(terms_of(name)):
        assert set(terms.lse) == set(terms.lse_uncond) == set(layers)
        for layer in layers:
            theirs = file[f"lse/{layer}"].mean(-1)  # (T, 2B, heads)
            assert_close(terms.lse_uncond[layer][0], theirs[:, pair])
            assert_close(terms.lse[layer][0, 0], theirs[:, pairs + pair])


@pytest.mark.parametrize("name", ["b1", "b1_lora", "b2"])
def test_scores(golden, terms_of, name):
    file, layers = getattr(golden, name), score_functions.chosen_layers(golden.model.unet)
    attention = jnp.stack(
        [score_functions.authors_attention(terms, layers)[0, 0] for terms in terms_of(name)], axis=1
    )
    bias = jnp.stack([(t.error_uncond - t.error[:, 0])[0] for t in terms_of(name)], axis=1)
    assert_close(bias, file["bias"])
    if name == "b2":
        assert_close(attention, file["ascore_per_pair"])
    # The authors average over the batch too, which makes a pair's score depend on its company.
    theirs = attention.mean(axis=1)
    assert_close(theirs, file["ascore"])
    assert_close(theirs.mean(), file["score_nobias"][0])
    assert_close(theirs[:, None] + bias, file["dbscore"])
    assert_close((theirs[:, None] + bias).mean(axis=0), file["score"])


def test_our_scores_are_of_the_captions_own_row(golden, terms_of):
    """`score_functions.score` against the golden arrays, without the empty caption's share."""
    layers = score_functions.chosen_layers(golden.model.unet)
    for pair, terms in enumerate(terms_of("b2")):
        lse = np.stack([golden.b2[f"lse/{layer}"][:, 2 + pair].mean((1, 2)) for layer in layers])
        attention = lse.mean()
        assert_close(score_functions.score(terms, "attention", layers), [[attention]])
        assert_close(
            score_functions.score(terms, "dsd", layers),
            [[attention + golden.b2["bias"][:, pair].mean()]],
        )


@pytest.mark.parametrize("name", ["bias", "nobias"])
def test_training_step(golden, name):
    """One text against two pictures: scores, hinge loss and the gradient of all 256 tensors."""
    file = np.load(golden.folder / f"train_comvg_{name}.npz")
    layers = score_functions.chosen_layers(golden.model.unet)

    def scores(prompts):
        rows = []
        for pair, timesteps in enumerate(file["timesteps"]):
            # Their text states are made with an attention mask in training: handed in as they are.
            terms = match_terms(
                golden.model,
                nhwc(file["latents"][pair]),
                file["prompt_embeds"][pair, 1:],
                nhwc(file["noise"][pair]),
                timesteps,
                prompts=prompts,
            )
            row = score_functions.authors_attention(terms, layers)[0, 0, 0]
            if file["use_bias"]:
                row += terms.error_uncond[0, 0] - terms.error[0, 0, 0]
            rows.append(row)
        return jnp.stack(rows)

    def loss(prompts):
        ours = scores(prompts)
        return jnp.maximum(0.0, ours[1:].max() - ours[0] + file["margin"]), ours

    prompts = from_authors(adapter(golden.folder))
    (value, ours), gradients = jax.value_and_grad(loss, has_aux=True)(prompts)
    assert_close(ours[None], file["scores"])
    assert_close(value, file["loss"])
    assert len(jax.tree.leaves(gradients)) == 256
    expected = from_authors({str(key): file[f"grad/{key}"] for key in file["grad_names"]})
    jax.tree.map(assert_gradient, gradients, expected)
    norm = optax.tree.norm(gradients)
    np.testing.assert_allclose(norm, file["grad_global_norm"], rtol=GRADIENT_TOLERANCE)
