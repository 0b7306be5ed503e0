"""Schedule, timesteps and noise."""

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.config.score_spec import timesteps, warn_of_count
from dsd_jax.diffusion.noising import Schedule, keyed_noise
from dsd_jax.errors import UserError

SHAPE = (4, 4, 4)


def test_timesteps_are_the_authors():
    assert timesteps(4).tolist() == [239, 489, 739, 989]
    assert timesteps(1).tolist() == [989]
    assert {count: len(timesteps(count)) for count in (30, 50, 1000)} == {30: 30, 50: 49, 1000: 980}
    for count in range(1, 1001):
        steps = timesteps(count)
        assert (np.diff(steps) > 0).all() and steps[0] >= 0 and steps[-1] <= 999


@pytest.mark.parametrize("count", [0, -1, 1001])
def test_timesteps_out_of_range(count):
    with pytest.raises(UserError, match=f"timesteps is {count}; expected .* from 1 to 1000"):
        timesteps(count)


def test_signal_left():
    alphas = Schedule().alphas_cumprod()
    assert alphas.dtype == np.float32 and alphas.shape == (1000,)
    np.testing.assert_allclose(alphas[0], 1 - 0.00085, rtol=1e-6)
    # Betas are straight lines in their square roots; `linear` ones are straight themselves.
    betas = 1 - alphas[1:].astype(np.float64) / alphas[:-1]
    np.testing.assert_allclose(np.diff(np.sqrt(betas), 2), 0, atol=1e-4)
    np.testing.assert_allclose(betas[-1], 0.012, rtol=1e-3)
    linear = Schedule(beta_schedule="linear", beta_start=0.1, beta_end=0.3, num_timesteps=3)
    np.testing.assert_allclose(linear.alphas_cumprod(), [0.9, 0.72, 0.504], rtol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_prediction_of_the_target_is_the_noise(prediction):
    schedule, rng = Schedule(prediction=prediction), np.random.default_rng(0)
    latents, noise = (jnp.asarray(rng.normal(size=(3, *SHAPE)), jnp.float32) for _ in range(2))
    steps = jnp.array([0, 500, 999])
    noisy = schedule.add_noise(latents, noise, steps)
    alphas = schedule.alphas_cumprod()[np.asarray(steps)].reshape(3, 1, 1, 1)
    np.testing.assert_allclose(
        noisy, np.sqrt(alphas) * latents + np.sqrt(1 - alphas) * noise, rtol=1e-5, atol=1e-6
    )
    target = schedule.target(latents, noise, steps)
    np.testing.assert_allclose(schedule.epsilon(target, noisy, steps), noise, atol=1e-5)
    if prediction == "epsilon":
        np.testing.assert_array_equal(target, noise)
    else:
        assert np.abs(target - noise).max() > 0.1


def test_schedule_of_a_file():
    json = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    assert Schedule.from_json(json) == Schedule()
    for schedule in (Schedule(prediction="v_prediction"), Schedule(beta_schedule="linear")):
        assert Schedule.from_json(schedule.to_json()) == schedule
    # What diffusers takes where a file says nothing.
    assert Schedule.from_json({}) == Schedule(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "sample"}, "prediction_type is 'sample', expected one of epsilon, v_"),
        ({"beta_schedule": "squaredcos_cap_v2"}, "'squaredcos_cap_v2' .* is not supported"),
        ({"trained_betas": [0.1]}, r"trained_betas \[0.1\] is not supported"),
        ({"_class_name": "EDMEulerScheduler"}, "EDMEulerScheduler has another way of adding noise"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscreteScheduler has"),
    ],
)
def test_schedules_we_do_not_know(change, message):
    with pytest.raises(UserError, match=message):
        Schedule.from_json(Schedule().to_json() | change)


def test_noise_depends_on_seed_image_and_timestep_alone():
    steps, pictures = np.array([14, 989]), np.array([7, 2**32 - 1], np.uint32)
    noise = keyed_noise(np.array([3, 3]), pictures, steps, SHAPE)
    assert noise.shape == (2, 2, *SHAPE) and noise.dtype == jnp.float32
    for i, picture in enumerate(pictures):
        for t, step in enumerate(steps):
            alone = keyed_noise(np.array([3]), np.array([picture]), np.array([step]), SHAPE)
            np.testing.assert_array_equal(noise[i, t], alone[0, 0])
    flat = np.asarray(noise).reshape(4, -1)
    others = keyed_noise(np.array([4, 4]), pictures, steps, SHAPE).reshape(4, -1)
    assert len(np.unique(np.concatenate([flat, others])[:, 0])) == 8


def test_noise_is_standard_normal():
    noise = keyed_noise(np.zeros(1, int), np.arange(50), np.zeros(1, int), (8, 8, 4))
    noise = np.asarray(noise)[:, 0]
    assert abs(noise.mean()) < 0.03 and abs(noise.std() - 1) < 0.03
    assert np.abs(np.corrcoef(noise.reshape(50, -1)) - np.eye(50)).max() < 0.35


def test_refuses_betas_it_does_not_know():
    with pytest.raises(UserError, match="rescale_betas_zero_snr"):
        Schedule.from_json({"rescale_betas_zero_snr": True})


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("kind", ["EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler"])
def test_schedules_of_sdxl_and_of_turbo_models(kind, spacing):
    """Fields about sampling do not change the schedule."""
    json = {
        "_class_name": kind,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "interpolation_type": "linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "sample_max_value": 1.0,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": spacing,
        "trained_betas": None,
        "use_karras_sigmas": False,
    }
    assert Schedule.from_json(json) == Schedule()


@pytest.mark.parametrize("steps", [500, 50, 4000])
def test_refuses_models_of_another_number_of_timesteps(steps):
    """With another number of timesteps, noise levels and scores would silently differ."""
    with pytest.raises(UserError, match=f"num_train_timesteps is {steps}, expected 1000"):
        Schedule.from_json(Schedule().to_json() | {"num_train_timesteps": steps})


@pytest.mark.parametrize(("asked", "found"), [(50, 49), (53, 55), (400, 490), (600, 980)])
def test_another_number_of_timesteps_than_asked_for_is_said(asked, found):
    assert len(timesteps(asked)) == found
    with pytest.warns(UserWarning, match=f"^{asked} timesteps are asked for, {found} are scored"):
        warn_of_count(asked)


def test_as_many_timesteps_as_asked_for_are_no_news():
    for count in range(1, 31):
        warn_of_count(count)  # a warning would be an error
