"""The explanation of an image by a caption: where each word is seen, and why one caption won."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath
from PIL import Image

from dsd_jax.diffusion.pipeline import Model
from dsd_jax.diffusion.tokenization import caption_words, check_captions, check_texts
from dsd_jax.errors import UserError
from dsd_jax.io.images import ImageInput, open_image, read_images
from dsd_jax.io.storage import write_file
from dsd_jax.matching.attention_maps import token_maps
from dsd_jax.matching.forward import finest_layers
from dsd_jax.matching.match_scores import MatchSettings, match_settings
from dsd_jax.matching.score_maps import difference_map, spread
from dsd_jax.prompts.prompt_metadata import GivenPrompts

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dsd_jax.matching.plot_heatmaps import Panel

FINEST = "finest"  # layers whose queries are as many as any layer's; chosen in docs/findings.md
FORMATS = (".png", ".pdf", ".svg", ".jpg", ".webp")
# Words that name nothing: drawn small.
_STOP_WORDS = (
    " a an the this that these those its his her their my your our some of to in on at by for "
    "from with and or as is are was were be been being it he she they there which who while "
)


@dataclass(frozen=True, repr=False, eq=False)
class Decision:
    """A difference of two captions' scores, and where in the image it arises.

    Attributes:
        rather_than: the other caption; "" for the empty one.
        method: whose scores.
        map: (H, W) float64 at the size of the image; its sum is the difference.
        difference: the caption's score less the other's.
    """

    rather_than: str
    method: str
    map: np.ndarray
    difference: float


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """The words of a caption and where each is attended to in an image; it draws itself.

    It unpacks into two: `words, maps = dsd_jax.explain(...)`.

    Attributes:
        image: in RGB, at its own size.
        caption: as it was given.
        words: as the model reads them.
        maps: (words, H, W) float32 at the size of the image: the share of attention, 0 to 1, that a
            pixel gives to the tokens of the word, all layers and heads counting alike.
        special: the same of the model's special tokens, {"start", "end", "padding"}: (h, w) at the
            size of its latent.
        model: what the model was loaded from.
        timesteps: number of noise levels that maps are averages over.
        decision: why this caption rather than another, if that was asked.
    """

    image: Image.Image
    caption: str
    words: list[str]
    maps: np.ndarray
    special: Mapping[str, np.ndarray]
    model: str
    timesteps: int
    decision: Decision | None = None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.words, self.maps))

    def __getitem__(self, index: int) -> Any:
        return (self.words, self.maps)[index]

    @property
    def difference(self) -> np.ndarray:
        """The map of the decision, (H, W) float64, whose sum is `score_difference`."""
        return self._decision().map

    @property
    def score_difference(self) -> float:
        """The score of the caption less that of the other one."""
        return self._decision().difference

    def _decision(self) -> Decision:
        if self.decision is None:
            raise UserError(
                "the explanation is of one caption; name the other one with "
                'explain(..., rather_than="...") to see where their scores differ.'
            )
        return self.decision

    def plot(
        self, *, stop_words: str = "small", special_tokens: bool = False, scale: str = "contrast"
    ) -> "Figure":
        """Return a figure of the image with each word's map over it.

        Args:
            stop_words: "small", "large" or "hidden": how words such as "of" are drawn.
            special_tokens: whether the maps of the start, end and padding tokens are drawn, too.
            scale: what colors are, on one scale for all words: "contrast", the attention that a
                pixel gives to a word as a multiple of the word's average over the image; or
                "share", the part of its attention that it gives to the word.

        Raises:
            UserError: an option is none of these.
        """
        from dsd_jax.matching.plot_heatmaps import draw_panels

        options = {"stop_words": stop_words, "scale": scale}
        allowed = {"stop_words": ("small", "large", "hidden"), "scale": ("contrast", "share")}
        for name, value in options.items():
            if value not in allowed[name]:
                raise UserError(f"{name} is {value!r}; expected one of {', '.join(allowed[name])}.")
        panels = self._panels(stop_words, special_tokens, scale == "share")
        scales = list(dict.fromkeys(panel.scale for panel in panels))
        return draw_panels(self.image, self.decision_text() or self.caption, panels, scales)

    def _panels(self, stop_words: str, special_tokens: bool, shares: bool) -> list["Panel"]:
        """Return the panel of the decision if there is one, and those of the words.

        The words' scale ends at the highest value of a content word, so that these can be told
        apart: words such as "of" and the special tokens may have many times as much attention.
        """
        from dsd_jax.matching.plot_heatmaps import Panel, Scale

        entries = list(zip(self.words, self.maps, strict=True))
        if special_tokens:
            entries += [(f"<{name}>", heat) for name, heat in self.special.items()]
        heats = [100 * heat if shares else heat / heat.mean() for _, heat in entries]
        named = [not is_stop_word(word) for word in self.words]
        high = max(
            (float(heat.max()) for heat, kept in zip(heats, named, strict=False) if kept),
            default=max(float(heat.max()) for heat in heats),
        )
        label = "attention, % of a pixel's" if shares else "attention, 1: the word's average"
        scale, panels = Scale(label, 0.0, high), self._decision_panel()
        for place, ((word, _), heat) in enumerate(zip(entries, heats, strict=True)):
            is_word, content = place < len(named), place < len(named) and named[place]
            if content or not is_word or stop_words != "hidden":
                large = content or (is_word and stop_words == "large")
                panels.append(Panel(word, heat, scale, large))
        return panels

    def _decision_panel(self) -> list["Panel"]:
        from dsd_jax.matching.plot_heatmaps import Panel, Scale

        if not self.decision:
            return []
        percent = self.decision.map * self.decision.map.size / 100
        most = float(np.abs(percent).max()) or 1.0
        label = f"{self.decision.method} score of 1 % of the image; red is for the caption"
        return [Panel("why", percent, Scale(label, -most, most, signed=True))]

    def save(self, path: str | Path, **options: Any) -> None:
        """Write the figure to a file, as its ending says: PNG, PDF, SVG, JPEG or WebP.

        Args:
            path: of the file; one that is there is replaced.
            **options: as `plot` takes them.

        Raises:
            UserError: the ending is another, or the file cannot be written.
        """
        from dsd_jax.io.figures import figure_bytes

        suffix = Path(path).suffix.lower()
        if suffix not in FORMATS:
            raise UserError(
                f"{path} has no ending of a picture; expected one of {', '.join(FORMATS)}."
            )
        content = figure_bytes(self.plot(**options), suffix[1:])
        write_file(epath.Path(path), content)

    def _repr_png_(self) -> bytes:
        from dsd_jax.io.figures import png_bytes

        return png_bytes(self.plot())

    def _repr_html_(self) -> str:
        picture = base64.b64encode(self._repr_png_()).decode()
        return (
            f'<img style="max-width: 100%; height: auto" alt="{escape(repr(self))}" '
            f'src="data:image/png;base64,{picture}">'
        )

    def __repr__(self) -> str:
        lines = [f"'{self.caption}' in an image of {self.image.width}x{self.image.height}:"]
        named = [(w, m) for w, m in zip(self.words, self.maps, strict=True) if not is_stop_word(w)]
        width = max((len(word) for word, _ in named), default=0)
        for word, heat in named:
            row, column = np.unravel_index(heat.argmax(), heat.shape)
            lines.append(
                f"  {word.ljust(width)}  most at ({column}, {row}): {heat.max():.1%} of attention"
            )
        if self.decision:
            lines.append(self.decision_text())
        return "\n".join(lines)

    def decision_text(self) -> str:
        """Return the decision in words; empty if none was asked for."""
        if not self.decision:
            return ""
        other = f"'{self.decision.rather_than}'" if self.decision.rather_than else "no caption"
        return (
            f"{self.decision.method} score {self.decision.difference:+.4g} "
            f"for '{self.caption}' rather than {other}"
        )


def is_stop_word(word: str) -> bool:
    """Return whether a word names nothing, as "of" or a comma."""
    return f" {word.lower()} " in _STOP_WORDS or not any(letter.isalnum() for letter in word)


def explain(
    model: Model,
    image: ImageInput,
    caption: str,
    *,
    rather_than: str | None = None,
    method: str | None = None,
    timesteps: int | None = None,
    seed: int = 0,
    prompts: GivenPrompts = None,
    layers: Sequence[str] | str | None = FINEST,
    force: bool = False,
) -> Explanation:
    """Return where each word of a caption is attended to, and why it fits better than another.

    Args:
        model: from `dsd_jax.load`.
        image: path, PIL image or uint8 array (H, W, 3).
        caption: a sentence.
        rather_than: another caption; the explanation then has a map of where the caption's score is
            above the other's, which adds up to the difference of their scores. "" is the empty
            caption: for itm and relative the map then adds up to the score itself.
        method: of the scores that are compared; by default the one that the prompts were learned
            for, or "dsd". The words' maps do not depend on it.
        timesteps: number of noise levels to average over; by default as many as the prompts were
            learned at, or 10.
        seed: of the noise.
        prompts: what `learn` returns, the folder that it or `train` wrote, or a pytree.
        layers: layers whose attention to words is averaged: "finest", those with the most queries;
            "all"; paths; or None for those of the attention score. Scores that are compared are
            those of `match_scores`, with its layers.
        force: whether to use prompts for what they were not learned for.

    Returns:
        An explanation, which draws itself in a notebook, and unpacks into words and maps.

    Raises:
        UserError: the image cannot be read, the caption is empty or has no words for the model, a
            layer is unknown, or the prompts were learned for something else.
    """
    (caption,) = check_captions([caption])
    words, spans = caption_words(model.tokenizer, caption)
    if not words:
        raise UserError(f"caption '{caption}' has no words that the model reads; name something.")
    if isinstance(layers, str) and layers == FINEST:
        layers = finest_layers(model.unet)
    settings = match_settings(
        model, prompts, method, timesteps, layers=layers, seed=seed, force=force, any_layers=True
    )
    opened, decision = open_image(image), None
    heats, special = _maps_of_words(model, opened, caption, spans=spans, settings=settings)
    if rather_than is not None:
        (other,) = check_texts([rather_than])
        scored = match_settings(
            model, prompts, method, timesteps, layers=None, seed=seed, force=force
        )
        decision = _decide(model, opened, (caption, other.strip() and other), scored)
    count = len(settings.timesteps)
    return Explanation(opened, caption, words, heats, special, model.name, count, decision)


def _maps_of_words(
    model: Model,
    image: Image.Image,
    caption: str,
    *,
    spans: Sequence[tuple[int, int]],
    settings: MatchSettings,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the words' maps at the image's size, (words, H, W), and those of special tokens."""
    (pixels,) = read_images([image], model.image_size)
    maps, last = token_maps(model, pixels, caption, settings), spans[-1][1]
    heats = [_enlarged(maps[start:end].sum(axis=0), image.size) for start, end in spans]
    special = {"start": maps[0], "end": maps[last], "padding": maps[last + 1 :].sum(axis=0)}
    return np.stack(heats), special


def _decide(
    model: Model, image: Image.Image, captions: tuple[str, str], settings: MatchSettings
) -> Decision:
    """Return the difference of two captions' scores as a map of the image's size."""
    (pixels,) = read_images([image], model.image_size)
    heat = difference_map(model, pixels, captions, settings)
    total = float(heat.sum())
    return Decision(captions[1], settings.method, spread(heat, (image.height, image.width)), total)


def _enlarged(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map to (width, height), bicubic, clipped to 0..1."""
    big = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(big), 0.0, 1.0)
