"""What the page's buttons do: what a visitor chose and learned is used, and only that visitor's."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from dsd_jax.errors import UserError
from dsd_jax.matching.match_result import MatchResult
from dsd_jax.prompts.learned_prompts import Prompts
from dsd_jax.prompts.prompt_metadata import PromptMetadata
from dsd_jax.web import demo_handlers
from dsd_jax.web.demo_handlers import FROZEN, LEARNED, DemoHandlers, LearnForm, RankForm
from dsd_jax.web.demo_requests import LESSONS, Lesson, RankedCaptions

PATH = "mid_block.attentions.0.transformer_blocks.0.attn2"
LORA = {PATH: {"to_q": {"down": np.ones((4, 2), np.float32), "up": np.ones((2, 4), np.float32)}}}
ABOUT = {"recipe": {"methods": ["relative"], "kinds": ["lora"]}, "timesteps": [489, 989]}


def prompts(kept=True):
    return Prompts({"lora": LORA} if kept else {}, PromptMetadata.model_validate(ABOUT))


@pytest.fixture
def handlers(tmp_path):
    return DemoHandlers(None, {"a run's": prompts()}, [], tmp_path)


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (20, 20), "red").save(tmp_path / "red.png")
    return {"path": str(tmp_path / "red.png"), "orig_name": "red.png"}


@pytest.fixture
def asked(monkeypatch):
    """Return what was asked of the model, which answers at once."""
    asked = []

    def rank_captions(model, image, captions, settings):
        asked.append((captions, settings))
        scores = np.zeros((1, len(captions)), np.float32)
        result = MatchResult(scores, (image,), tuple(captions), ("it",), "noise", 1, 0, "tiny")
        return RankedCaptions(result, {}, settings.prompts_name, 0.0)

    monkeypatch.setattr(demo_handlers, "rank_captions", rank_captions)
    return asked


def rank_form(picture, **changes):
    fields = {
        "captions": "a cat\na dog",
        "method": "noise",
        "timesteps": 3,
        "prompts": FROZEN,
        "maps": "none",
        "learned": None,
    }
    return RankForm(picture, **(fields | changes))


def learn_form(picture, **changes):
    fields = {
        "captions": "a\nb\nc\nd",
        "wrong": "",
        "kind": 1,
        "timesteps": 5,
        "learned": None,
    }
    return LearnForm([{"image": picture}] * 4, **(fields | changes))


def test_settings_and_prompts_are_those_that_were_chosen(handlers, picture, asked):
    own = prompts()
    for name, learned in ((FROZEN, own), (LEARNED, own), ("a run's", own)):
        handlers.rank(rank_form(picture, prompts=name, learned=learned))
    used = [settings.prompts for _, settings in asked]
    assert used == [None, own, handlers.prompts["a run's"]]
    captions, settings = asked[0]
    assert captions == ["a cat", "a dog"]
    assert (settings.method, settings.timesteps, settings.maps) == ("noise", 3, "none")


@pytest.mark.parametrize("name", [LEARNED, "another's", ["a list"], 3])
def test_prompts_that_are_not_there_are_a_sentence(handlers, picture, asked, name):
    html = handlers.rank(rank_form(picture, prompts=name))
    assert "These prompts are gone" in html and not asked


def test_choices_are_the_given_prompts_and_the_visitors_own(handlers):
    assert [value for _, value in handlers.choices()] == [FROZEN, "a run's"]
    assert [value for _, value in handlers.choices(prompts())] == [FROZEN, LEARNED, "a run's"]


def test_what_is_learned_can_be_taken_home(handlers, picture, monkeypatch, tmp_path):
    own, calls = prompts(), []

    def learn_pairs(model, images, captions, wrong, **options):
        calls.append((len(images), captions, wrong, options))
        return Lesson(own, len(images), 1.0)

    monkeypatch.setattr(demo_handlers, "learn_pairs", learn_pairs)
    done = handlers.learn(learn_form(picture))
    assert done.new and done.prompts is own
    with zipfile.ZipFile(done.file) as archive:
        archive.extractall(tmp_path / "home")
    again = Prompts.load(tmp_path / "home" / "prompts")
    assert again.metadata == own.metadata and list(again.params["lora"]) == [PATH]
    count, captions, wrong, options = calls[0]
    assert (count, captions, wrong) == (4, ["a", "b", "c", "d"], None)
    assert (options["kind"], options["timesteps"]) == (LESSONS[1], 5)


def test_what_was_not_kept_leaves_what_the_visitor_had(handlers, picture, monkeypatch):
    before = prompts()
    lesson = Lesson(prompts(kept=False), 4, 1.0)
    monkeypatch.setattr(demo_handlers, "learn_pairs", lambda *_, **__: lesson)
    done = handlers.learn(learn_form(picture, learned=before))
    assert not done.new and done.prompts is before and done.file is None
    assert "Nothing kept" in done.html


def test_wrong_captions_are_as_many_as_pictures_or_none(handlers, picture):
    done = handlers.learn(learn_form(picture, wrong="x\ny"))
    assert "4 pictures and 2 captions that do not" in done.html and not done.new


def test_mistakes_are_sentences_and_faults_are_told_to_the_terminal(capsys):
    def mistake():
        raise UserError("method 'x' is unknown.")

    assert "Method &#39;x&#39; is unknown." in demo_handlers.answered(mistake)
    assert "server goes on" in demo_handlers.answered(lambda: 1 / 0)
    assert "ZeroDivisionError" in capsys.readouterr().err
