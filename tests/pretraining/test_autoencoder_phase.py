"""The VAE's training: patches, losses, and latents of unit variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.models.vae import AutoencoderKL
from dsd_jax.pretraining import autoencoder_phase
from tests.random_model import random_model


@pytest.fixture(scope="module")
def vae():
    """Config and parameters of a tiny VAE for pictures of 8x8."""
    model = random_model()
    return model.vae, model.params["vae"]


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).uniform(-1, 1, (128, 8, 8, 3)).astype(np.float32)


class Stripes:
    """A stream whose pictures are black, but for the red channel, whatever is asked for."""

    def batch(self, key, count):
        self.key = key
        return np.zeros((count, 64, 64, 3), np.uint8) + np.array([200, 0, 0], np.uint8), []


def test_batch_recolors_about_half():
    stream = Stripes()
    images = autoencoder_phase.batch(stream, 5, 200, 3)
    assert stream.key == [5, 1, 3]
    assert images.shape == (200, 64, 64, 3) and np.abs(images).max() <= 1
    changed = (images[:, 0, 0] != autoencoder_phase.to_pixels(np.array([200, 0, 0], np.uint8))).any(
        -1
    )
    assert 60 < changed.sum() < 110
    np.testing.assert_array_equal(autoencoder_phase.batch(Stripes(), 5, 200, 3), images)
    assert (autoencoder_phase.batch(Stripes(), 5, 200, 4) != images).any()


def test_patches_hold_the_images_pixels():
    pictures = np.arange(2 * 8 * 8 * 3.0).reshape(2, 8, 8, 3)
    patches = autoencoder_phase.to_patches(pictures, 4)
    assert patches.shape == (2, 2, 2, 48)
    np.testing.assert_array_equal(patches[1, 0, 1].reshape(4, 4, 3), pictures[1, :4, 4:])


def test_principal_patches_decode_what_lies_in_their_span(vae):
    """Pictures whose patches have as many degrees of freedom as a latent has channels."""
    config, rng = vae[0], np.random.default_rng(0)
    basis = rng.normal(size=(config.latent_channels, 2 * 2 * 3))
    latents = rng.normal(size=(40, 4, 4, config.latent_channels))
    patches = latents @ basis + 0.3
    pictures = patches.reshape(40, 4, 4, 2, 2, 3).swapaxes(2, 3).reshape(40, 8, 8, 3)
    decoder = autoencoder_phase.principal_patches(pictures, config)
    assert decoder["kernel"].shape == (4, 12) and decoder["bias"].shape == (12,)
    flat = patches.reshape(-1, 12) - decoder["bias"]
    components = flat @ np.linalg.pinv(decoder["kernel"])
    np.testing.assert_allclose(components @ decoder["kernel"], flat, atol=1e-4)
    np.testing.assert_allclose(np.cov(components, rowvar=False), np.eye(4), atol=1e-4)


def test_whitened_latents_keep_the_reconstruction(vae, pixels):
    config, params = vae
    whitened = autoencoder_phase.whiten(params, config, pixels)
    run = jax.jit(lambda p: AutoencoderKL(config).apply({"params": p}, pixels))
    encode = jax.jit(lambda p: AutoencoderKL(config).apply({"params": p}, pixels, method="encode"))
    np.testing.assert_allclose(run(whitened), run(params), rtol=0, atol=1e-4)
    (mean, logvar), (before, logvar_before) = encode(whitened), encode(params)
    np.testing.assert_allclose(mean.mean((0, 1, 2)), np.zeros(4), atol=1e-4)
    np.testing.assert_allclose(mean.var((0, 1, 2)), np.ones(4), atol=1e-3)
    assert np.abs(before.var((0, 1, 2)) - 1).max() > 0.1
    # The posterior is as wide as before, in units of its mean's spread.
    scale = before.std((0, 1, 2))
    np.testing.assert_allclose(
        np.exp(logvar / 2), np.exp(logvar_before / 2) / scale, rtol=1e-3, atol=1e-5
    )
    untouched = set(params) - {"quant_conv", "post_quant_conv"}
    assert all(whitened[name] is params[name] for name in untouched)
    quality = (autoencoder_phase.psnr(p, config, pixels) for p in (params, whitened))
    np.testing.assert_allclose(*quality, atol=1e-3)


def test_losses_by_hand(vae):
    """The VAE's posterior is nearly a point here, so that the loss does not depend on noise."""
    config, params = vae
    quant = params["quant_conv"]
    bias = jnp.concatenate([quant["bias"][:4], jnp.full(4, -40.0)])
    kernel = quant["kernel"].at[..., 4:].set(0)
    params = {**params, "quant_conv": {"kernel": kernel, "bias": bias}}
    pixels = np.random.default_rng(1).uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    patches = autoencoder_phase.principal_patches(pixels, config)
    both = {"vae": params, "patches": patches}
    model = AutoencoderKL(config)
    mean, logvar = model.apply({"params": params}, pixels, method="encode")
    linear = np.mean((mean @ patches["kernel"] + patches["bias"] - patches_of(pixels)) ** 2)
    # The VAE clips logvar to -30.
    kl = 0.5 * np.mean(np.square(mean) + np.exp(logvar) - 1 - logvar)
    error = np.asarray(model.apply({"params": params}, mean, method="decode")) - pixels
    key = jax.random.key(0)
    expected = linear + autoencoder_phase.KL_WEIGHT * kl
    loss, metrics = autoencoder_phase.losses(both, config, pixels, key, decoder=False)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["linear_psnr"], 10 * np.log10(4 / linear), rtol=1e-4)
    assert set(metrics) == {"linear_psnr"}
    loss, metrics = autoencoder_phase.losses(both, config, pixels, key, decoder=True)
    squared = np.mean(error**2)
    expected += squared + 0.1 * np.mean(np.abs(error))
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(metrics["psnr"], 10 * np.log10(4 / squared), rtol=1e-4)


def patches_of(pixels):
    return np.asarray(autoencoder_phase.to_patches(pixels, 2))
