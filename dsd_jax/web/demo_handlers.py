"""Answers to what is clicked on the demo's page: always one, never a traceback."""

import tempfile
import traceback
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from dsd_jax.diffusion.pipeline import Model
from dsd_jax.errors import DeviceError, UserError
from dsd_jax.prompts.learned_prompts import Prompts
from dsd_jax.web import demo_inputs, result_html
from dsd_jax.web.demo_examples import Example, ExamplePairs, example_pairs
from dsd_jax.web.demo_requests import LESSONS, RankSettings, learn_pairs, rank_captions

FROZEN, LEARNED = "frozen", "learned"  # choices of prompts beside those that are given
_NAMES = {LEARNED: "learned here"}
METHOD, TIMESTEPS = "relative", 10  # the best on the bundled benchmark, and its number
_FAULT = (
    "Something went wrong in the program; the server goes on, and its terminal says more. Try "
    "again, or give it something else."
)


@dataclass(frozen=True)
class RankForm:
    """A form that a visitor sends to have captions ranked, as the browser gives it, unchecked.

    Attributes:
        picture: an upload.
        captions: one a line.
        method: a name.
        timesteps: a number.
        prompts: `FROZEN`, `LEARNED`, or the name of given ones.
        maps: of which captions there are maps.
        learned: what this visitor has learned; it stays on the server.
    """

    picture: Any
    captions: Any
    method: Any
    timesteps: Any
    prompts: Any
    maps: Any
    learned: Prompts | None


@dataclass(frozen=True)
class LearnForm:
    """A form that a visitor sends to have prompts learned, as the browser gives it.

    Attributes:
        pictures: uploads.
        captions: that fit them, one a line.
        wrong: captions that do not fit them, one a line, or nothing.
        kind: index into `LESSONS`.
        timesteps: a number.
        learned: what this visitor has learned before; it stays on the server.
    """

    pictures: Any
    captions: Any
    wrong: Any
    kind: Any
    timesteps: Any
    learned: Prompts | None


class Learned(NamedTuple):
    """An answer to a `LearnForm`.

    Attributes:
        html: what was learned, or what is wrong.
        prompts: the visitor's from now on.
        file: of them, to download; None if there are none.
        new: whether they are to be ranked with from now on.
    """

    html: str
    prompts: Prompts | None
    file: str | None
    new: bool


@dataclass(frozen=True)
class DemoHandlers:
    """The functions behind the page's buttons.

    What a visitor has learned comes and goes with each call, so visitors never see each other's.

    Attributes:
        model: that all visitors share.
        prompts: to choose from, by what they are called.
        examples: to rank.
        folder: for what visitors download; the server deletes it at its end.
        steps: of the optimizer in a lesson, at most; None for the recipe's.
    """

    model: Model
    prompts: Mapping[str, Prompts]
    examples: Sequence[Example]
    folder: Path
    steps: int | None = None

    @cached_property
    def pairs(self) -> ExamplePairs:
        """The example to learn from."""
        return example_pairs()

    def icons(self) -> list[str]:
        """Write small copies of the examples; return their paths."""
        paths = []
        for number, example in enumerate(self.examples):
            paths.append(str(self.folder / f"example-{number}.png"))
            example.image.resize((64, 64)).save(paths[-1])
        return paths

    def choices(self, learned: Prompts | None = None) -> list[tuple[str, str]]:
        """Return the choices of prompts: what is shown, and what is sent."""
        own = [(f"learned here: {learned.summary}", LEARNED)] if learned else []
        return [("none: the model as it is", FROZEN), *own, *((n, n) for n in self.prompts)]

    def first_answer(self) -> str:
        """Return the ranking of the first example, which also compiles what rankings take.

        "" for models other than the bundled one, which would take minutes on two cores.
        """
        if self.model.name != "tiny":
            return ""
        first = self.examples[0]
        settings = RankSettings(METHOD, TIMESTEPS)
        ranked = rank_captions(self.model, first.image, first.captions, settings)
        return result_html.ranking_html(ranked)

    def rank(self, form: RankForm) -> str:
        """Return the ranking of captions for a picture, or what is wrong, as HTML."""

        def answer() -> str:
            image = demo_inputs.read_upload(form.picture)
            captions = demo_inputs.read_captions(form.captions)
            prompts = self.chosen_prompts(form.prompts, form.learned)
            settings = RankSettings(
                method=str(form.method),
                timesteps=demo_inputs.check_timesteps(form.timesteps),
                prompts=prompts,
                prompts_name=str(_NAMES.get(form.prompts, form.prompts)) if prompts else "",
                maps=str(form.maps),
            )
            return result_html.ranking_html(rank_captions(self.model, image, captions, settings))

        return answered(answer)

    def learn(self, form: LearnForm) -> Learned:
        """Learn prompts from pairs; return them, or what is wrong and those there were."""
        lessons = []

        def answer() -> str:
            images = demo_inputs.read_uploads(form.pictures)
            count = len(images)
            captions = demo_inputs.read_pair_captions(form.captions, count, "captions that fit")
            wrong = None
            if demo_inputs.lines_of(form.wrong):
                wrong = demo_inputs.read_pair_captions(form.wrong, count, "captions that do not")
            lesson = learn_pairs(
                self.model,
                images,
                captions,
                wrong,
                kind=LESSONS[form.kind if form.kind in range(len(LESSONS)) else 0],
                timesteps=demo_inputs.check_timesteps(form.timesteps),
                steps=self.steps,
            )
            lessons.append(lesson)
            return result_html.lesson_html(lesson)

        html = answered(answer)
        if lessons and lessons[0].prompts.params:
            prompts = lessons[0].prompts
            return Learned(html, prompts, self._zipped(prompts), new=True)
        return Learned(html, form.learned, None, new=False)

    def checked_picture(self, picture: Any) -> tuple[Image.Image | None, str]:
        """Return an upload as it is kept, and ""; or None and what is wrong with it, as HTML."""
        images = []

        def answer() -> str:
            images.append(demo_inputs.read_upload(picture))
            return ""

        html = answered(answer)
        return (images[0] if images else None), html

    def chosen_prompts(self, name: Any, learned: Prompts | None) -> Prompts | None:
        """Return the prompts that a choice means; None for the frozen model.

        Raises:
            UserError: there are none of that name any more.
        """
        if name is None or name == FROZEN:
            return None
        if name == LEARNED and learned:
            return learned
        if not isinstance(name, str) or name not in self.prompts:
            raise UserError("These prompts are gone, as after a restart; learn or choose others.")
        return self.prompts[name]

    def _zipped(self, prompts: Prompts) -> str:
        """Write prompts into an archive; return its path."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        prompts.save(place / "prompts")
        archive = place / "prompts.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            for path in sorted((place / "prompts").iterdir()):
                file.write(path, f"prompts/{path.name}")
        return str(archive)


def answered(work: Callable[[], str]) -> str:
    """Return what `work` returns, or its error in a sentence, as HTML; a bug goes to stderr."""
    try:
        return work()
    except (UserError, DeviceError) as error:
        text = str(error)
        return result_html.error_html(f"{text[:1].upper()}{text[1:]}")
    except Exception:  # whatever it is, other visitors and later requests are none the worse
        traceback.print_exc()
        return result_html.error_html(_FAULT)
