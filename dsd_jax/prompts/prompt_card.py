"""The card of learned prompts: what they are and how to use them, for the Hub and a notebook."""

from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from dsd_jax.prompts.lora_files import DIFFUSERS
from dsd_jax.prompts.prompt_params import count_params

if TYPE_CHECKING:
    from dsd_jax.prompts.learned_prompts import Prompts

TAGS = ["dsd_jax", "image-text-matching", "few-shot", "stable-diffusion"]
_TASK = "zero-shot-image-classification"  # of the Hub's tasks the one that choosing captions is
_HUB = "https://huggingface.co"
_LICENCE = (
    "Prompts are learned from a model's weights and from captions and images. The licence of the "
    "model{of} goes on to what is made from it: that of Stable Diffusion 1 and 2, CreativeML Open "
    "RAIL-M, asks that its restrictions of use be passed on. Whoever shares these prompts adds "
    "here what else holds, for their data, too."
)


def model_card(prompts: "Prompts", repo: str = "") -> ModelCard:
    """Return the model card of prompts.

    Args:
        prompts: as they are uploaded.
        repo: "org/name" on the Hub, where they will be; "" if that is not known.
    """
    about, history = prompts.metadata, prompts.history
    weights = about.weights or "the model that they were learned on"
    base = weights.partition("@")[0] if is_hub_name(weights) else None
    lora = "lora" in prompts.params
    data = ModelCardData(
        library_name="dsd_jax",
        pipeline_tag=_TASK,
        base_model=base,
        tags=[*TAGS, "lora"] if lora else TAGS,
    )
    template = files("dsd_jax.prompts").joinpath("model_card.md.jinja").read_text(encoding="utf-8")
    return ModelCard.from_template(
        data,
        template_str=template,
        name=repo.partition("/")[2] or repo or "Prompts learned with dsd_jax",
        summary=prompts.summary,
        weights=weights,
        base_url=f"{_HUB}/{base}" if base else "",
        rows=facts(prompts),
        verdict=_sentence(prompts.verdict),
        losses=list(history.losses.items()),
        kept=history.kept,
        repo=repo,
        lora=lora,
        lora_file=DIFFUSERS,
        weighted="weights" in prompts.params,
        licence=_LICENCE.format(of=f" ({base})" if base else ""),
    )


def is_hub_name(weights: str) -> bool:
    """Return whether a model's name is "org/name" on the Hub, as far as it tells."""
    return (
        weights.count("/") == 1
        and not weights.startswith(("/", ".", "~"))
        and not (Path(weights).exists())
    )


def facts(prompts: "Prompts") -> list[tuple[str, str]]:
    """Return what is known of prompts, each with its label."""
    about = prompts.metadata
    recipe: Mapping[str, Any] = about.recipe.stated() if about.recipe else {}
    learning = [
        f"{recipe[field]} {label}"
        for field, label in (("steps", "steps at most"), ("batch", "pairs a step"))
        if field in recipe
    ]
    rows = [
        ("parameters", f"{count_params(prompts.params):,}" if prompts.params else "none"),
        ("method", " and ".join(about.methods)),
        ("timesteps", str(prompts.timesteps or "")),
        ("layers", ", ".join(f"`{layer}`" for layer in about.layers)),
        ("learned from", f"{about.shots} pairs" if about.shots else ""),
        ("recipe", ", ".join([about.recipe_name or "", *learning]).strip(", ")),
        ("seed", "" if about.seed is None else str(about.seed)),
        ("weights (SHA-256)", f"`{about.weights_digest}`" if about.weights_digest else ""),
    ]
    return [(label, value) for label, value in rows if value]


def prompts_html(prompts: "Prompts") -> str:
    """Return what a notebook shows of prompts: the verdict, the curve, and what they are for."""
    shown = [(k, v) for k, v in facts(prompts) if k not in ("layers", "weights (SHA-256)")]
    cells = "".join(
        f'<tr><th style="text-align:left">{escape(label)}</th>'
        f'<td style="text-align:left">{escape(value)}</td></tr>'
        for label, value in shown
    )
    curve = prompts.history.html() if prompts.history.losses else ""
    return (
        f"<div><p><b>{escape(_sentence(prompts.summary))}.</b> "
        f"{escape(_sentence(prompts.verdict))}.</p>{curve}<table>{cells}</table></div>"
    )


def _sentence(text: str) -> str:
    """Return a text with a capital letter and without a full stop."""
    return (text[:1].upper() + text[1:]).removesuffix(".")
