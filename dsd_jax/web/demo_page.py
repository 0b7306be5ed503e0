"""The demo's page, in Gradio: what there is on it, and which handler a click calls."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.themes import Base, Default

from dsd_jax.config.score_spec import METHODS
from dsd_jax.errors import UserError
from dsd_jax.web import demo_inputs, result_html
from dsd_jax.web.demo_handlers import (
    FROZEN,
    LEARNED,
    METHOD,
    TIMESTEPS,
    DemoHandlers,
    LearnForm,
    RankForm,
)
from dsd_jax.web.demo_requests import LESSONS, MAPS
from dsd_jax.web.page_progress import shown_by

FORGOTTEN = 4 * 3600  # seconds after which what a visitor has learned is deleted
STYLE = Path(__file__).with_name("demo.css")
TITLE = "Which caption fits the picture?"
_FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
_MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")
# Handlers read what the browser sends by themselves, so that no file ends in a traceback, and one
# request at a time has the device. Nothing is offered to programs: the library is better for them.
_EVENT: Mapping[str, Any] = {"preprocess": False, "api_visibility": "private"}
_ON_DEVICE: Mapping[str, Any] = {**_EVENT, "concurrency_id": "device", "concurrency_limit": 1}


def make_theme() -> Base:
    """Return the page's theme: fonts that every machine has, and the colors of reports."""
    return Default(
        primary_hue="orange",
        neutral_hue="stone",
        font=_FONTS,
        font_mono=_MONO,
        radius_size="md",
    ).set(
        body_background_fill="#fbfaf8",
        body_background_fill_dark="#14161a",
        block_background_fill_dark="#1c1f25",
        button_primary_background_fill="#b93a09",
        button_primary_background_fill_hover="#9a3412",
        button_primary_background_fill_dark="#b93a09",
        button_primary_background_fill_hover_dark="#c2410c",
        button_primary_text_color="white",
        body_text_color_subdued="#5c636e",
        body_text_color_subdued_dark="#a2a9b4",
        block_label_text_color="#454b54",
        block_label_text_color_dark="#c6cbd3",
        input_background_fill_dark="#14161a",
        button_secondary_background_fill_dark="#2a2e36",
        button_secondary_background_fill_hover_dark="#363b45",
        checkbox_label_background_fill_dark="#14161a",
        block_title_text_color="#1f2328",
        block_title_text_color_dark="#e8e6e1",
    )


# Screen readers take the label of an upload's box for its name, which then hides the text in it.
SCRIPT = """() => {
  const mend = () => document.querySelectorAll("button.upload-container[aria-label]").forEach(
    (box) => box.innerText.trim() && box.removeAttribute("aria-label"));
  new MutationObserver(mend).observe(document.body, { childList: true, subtree: true });
  mend();
}"""


def make_page(handlers: DemoHandlers, first_answer: str = "") -> gr.Blocks:
    """Return the page.

    Args:
        handlers: of its events.
        first_answer: HTML of the first example's ranking, if that is known.
    """
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(_header(handlers), elem_classes="dsd-header")
        learned = gr.State(None, time_to_live=FORGOTTEN)
        with gr.Tabs():
            with gr.Tab("Rank captions", id="rank"):
                prompts = _rank_tab(handlers, learned, first_answer)
            with gr.Tab("Teach it", id="learn"):
                _learn_tab(handlers, learned, prompts)
    return page


def _header(handlers: DemoHandlers) -> str:
    about = (
        "This model knows drawings of a hundred things in simple scenes, no photographs."
        if handlers.model.name == "tiny"
        else f"Model: {handlers.model.name}."
    )
    return result_html.header_html(
        TITLE,
        "A Stable Diffusion model that was trained to draw also tells how well words fit a "
        f"picture. {about}",
    )


def _rank_tab(handlers: DemoHandlers, learned: gr.State, first_answer: str) -> gr.Dropdown:
    """Lay out the tab that ranks captions; return its choice of prompts."""
    first = handlers.examples[0]
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=280):
            picture = _picture_box(first.image)
            captions = gr.Textbox(
                "\n".join(first.captions),
                label="Captions, one a line",
                lines=3,
                max_lines=demo_inputs.MOST_CAPTIONS,
                elem_id="captions",
            )
            go = gr.Button("Rank captions", variant="primary", elem_id="rank")
            gr.HTML(result_html.label_html("Examples"), elem_classes="dsd-label")
            with gr.Row(elem_classes="dsd-examples"):
                buttons = _example_buttons(handlers)
            settings = _settings(handlers)
        with gr.Column(scale=6, min_width=280, elem_classes="dsd-answer"):
            hint = result_html.hint_html("The ranking appears here.")
            answer = gr.HTML(first_answer or hint, elem_id="answer", min_height=120)
    fields = {"picture": picture, "captions": captions, **settings, "learned": learned}

    def rank(values: dict[Component, Any], progress: gr.Progress = gr.Progress()) -> str:  # noqa: B008
        with shown_by(progress):
            return handlers.rank(RankForm(**_by_name(fields, values)))

    event = {"fn": rank, "inputs": {*fields.values()}, "outputs": answer, **_ON_DEVICE}
    go.click(**event)
    for button, example in zip(buttons, handlers.examples, strict=True):
        filled = button.click(
            lambda example=example: (example.image, "\n".join(example.captions)),
            outputs=[picture, captions],
            show_progress="hidden",
            **_EVENT,
        )
        filled.then(**event)
    picture.upload(
        lambda upload: _picture_answer(handlers, upload),
        inputs=picture,
        outputs=[picture, answer],
        show_progress="hidden",
        **_EVENT,
    )
    _follow_prompts(handlers, settings, learned)
    return settings["prompts"]


def _follow_prompts(handlers: DemoHandlers, settings: dict[str, Any], learned: gr.State) -> None:
    """Set method and timesteps to those of the prompts that are chosen."""
    settings["prompts"].change(
        lambda name, own: _follow(handlers, name, own),
        inputs=[settings["prompts"], learned],
        outputs=[settings["method"], settings["timesteps"]],
        show_progress="hidden",
        **_EVENT,
    )


def _example_buttons(handlers: DemoHandlers) -> list[gr.Button]:
    buttons = []
    for example, icon in zip(handlers.examples, handlers.icons(), strict=True):
        button = gr.Button(example.title, icon=icon, size="sm", min_width=80)
        if button.icon:  # or it would be deleted with old uploads
            button.keep_in_cache.add(button.icon["path"])
        buttons.append(button)
    return buttons


def _picture_box(image: Any) -> gr.Image:
    return gr.Image(
        image,
        label="Picture",
        format="png",
        sources=["upload", "clipboard"],
        height=300,
        buttons=[],
        placeholder=f"Drop a picture here, up to {demo_inputs.MOST_MEGABYTES} MB",
        alt_text="The picture whose captions are ranked",
        elem_id="picture",
    )


def _settings(handlers: DemoHandlers) -> dict[str, Any]:
    """Lay out the settings of a ranking; return them by the names of `RankForm`'s fields."""
    with gr.Accordion("Settings", open=False):
        return {
            "method": gr.Dropdown(
                [(f"{name}: {method.title}", name) for name, method in METHODS.items()],
                value=METHOD,
                label="Method",
                info="How the model's answer becomes a score; relative is the best without "
                "learning.",
                elem_id="method",
            ),
            "timesteps": gr.Slider(
                1,
                demo_inputs.MOST_TIMESTEPS,
                TIMESTEPS,
                step=1,
                label="Timesteps",
                info="Levels of noise to average over: more are slower and more exact.",
                elem_id="timesteps",
            ),
            "prompts": gr.Dropdown(
                handlers.choices(),
                value=FROZEN,
                label="Learned prompts",
                info="What was learned from pairs, here or by a run.",
                elem_id="prompts",
            ),
            "maps": gr.Radio(
                list(MAPS),
                value="best two",
                label="Word maps",
                info="For which captions to show where the model looks.",
                elem_id="maps",
            ),
        }


def _picture_answer(handlers: DemoHandlers, upload: Any) -> tuple[Any, Any]:
    """Return what the picture's box and the answer become after an upload."""
    image, error = handlers.checked_picture(upload)
    hint = result_html.hint_html("Now write its captions, and rank them.")
    return image, error or hint


def _follow(handlers: DemoHandlers, name: Any, learned: Any) -> tuple[Any, Any]:
    """Return the method and the number of timesteps for which prompts were learned."""
    try:
        prompts = handlers.chosen_prompts(name, learned)
    except UserError:  # a ranking says it
        prompts = None
    if prompts is None:
        return gr.skip(), gr.skip()
    return prompts.method or gr.skip(), prompts.timesteps or gr.skip()


def _learn_tab(handlers: DemoHandlers, learned: gr.State, prompts: gr.Dropdown) -> None:
    """Lay out the tab that learns from pairs; what is learned is chosen in `prompts`."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=280):
            pictures = _pictures_box()
            fill = gr.Button(
                f"Take {len(handlers.pairs.images)} example pairs", size="sm", elem_id="fill"
            )
            fields = {"pictures": pictures, **_pair_boxes()}
            status = gr.HTML(_status(None, "", ""), elem_classes="dsd-help", elem_id="pairs")
            go = gr.Button("Learn", variant="primary", elem_id="learn")
        with gr.Column(scale=5, min_width=280, elem_classes="dsd-answer"):
            hint = result_html.hint_html(
                "A part of the pairs is held out. What was learned is kept if it helps on those, "
                "and this tells whether it did."
            )
            answer = gr.HTML(hint, elem_id="lesson", min_height=120)
            download = gr.DownloadButton("Download what was learned", visible=False)
    fields["learned"] = learned

    def learn(values: dict[Component, Any], progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        with shown_by(progress):
            done = handlers.learn(LearnForm(**_by_name(fields, values)))
        if not done.new:
            return done.html, done.prompts, gr.skip(), gr.skip()
        choice = gr.Dropdown(choices=handlers.choices(done.prompts), value=LEARNED)
        return done.html, done.prompts, choice, gr.DownloadButton(value=done.file, visible=True)

    go.click(
        learn,
        inputs={*fields.values()},
        outputs=[answer, learned, prompts, download],
        show_progress_on=answer,
        **_ON_DEVICE,
    )
    texts = [fields["pictures"], fields["captions"], fields["wrong"]]
    for box in texts:
        box.change(_status, inputs=texts, outputs=status, show_progress="hidden", **_EVENT)
    fill.click(lambda: _example_boxes(handlers), outputs=texts, show_progress="minimal", **_EVENT)


def _pictures_box() -> gr.Gallery:
    return gr.Gallery(
        label=f"Pictures, {demo_inputs.LEAST_PAIRS} to {demo_inputs.MOST_PAIRS}",
        file_types=["image"],
        format="png",
        columns=6,
        height=230,
        object_fit="contain",
        buttons=[],
        interactive=True,
        allow_preview=False,
        elem_id="pictures",
    )


def _pair_boxes() -> dict[str, Any]:
    """Lay out what belongs to the pictures; return it by the names of `LearnForm`'s fields."""
    with gr.Row():
        captions = gr.Textbox(
            label="Captions that fit",
            info="One a line, in the order of the pictures.",
            lines=5,
            max_lines=10,
            min_width=220,
            elem_id="fitting",
        )
        wrong = gr.Textbox(
            label="Captions that do not fit",
            info="The same way, nearly right; or none, and those of other pictures are taken.",
            lines=5,
            max_lines=10,
            min_width=220,
            elem_id="wrong",
        )
    kind = gr.Radio(
        [(kind.title, index) for index, kind in enumerate(LESSONS)],
        value=0,
        label="What to learn",
        elem_id="kind",
    )
    with gr.Accordion("Settings", open=False):
        timesteps = gr.Slider(
            1,
            demo_inputs.MOST_TIMESTEPS,
            TIMESTEPS,
            step=1,
            label="Timesteps",
            info="What is learned for some number of them is ranked with at that number.",
            elem_id="steps",
        )
    return {"captions": captions, "wrong": wrong, "kind": kind, "timesteps": timesteps}


def _example_boxes(handlers: DemoHandlers) -> tuple[Any, str, str]:
    pairs = handlers.pairs
    return list(pairs.images), "\n".join(pairs.captions), "\n".join(pairs.wrong)


def _status(pictures: Any, captions: Any, wrong: Any) -> str:
    counts = len(pictures or ()), *(len(demo_inputs.lines_of(x)) for x in (captions, wrong))
    return result_html.status_html(demo_inputs.pairing(*counts))


def _by_name(fields: Mapping[str, Component], values: Mapping[Component, Any]) -> dict[str, Any]:
    return {name: values[component] for name, component in fields.items()}
