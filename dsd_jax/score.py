"""Scores captions against images and marks the caption that fits each image best."""

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from dsd_jax.cli import Parser, add_quiet, add_weights, check_text, run_command
from dsd_jax.errors import UserError
from dsd_jax.io.banner import count_of, show_banner
from dsd_jax.io.progress import Stage
from dsd_jax.io.terminal import shorten_path

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from dsd_jax import Model

EXAMPLE = """dsd-jax score --image a.png b.png \\
      --caption "a cat to the left of a dog" "a dog to the left of a cat"
  dsd-jax score --image 'photos/*.jpg' --captions=captions.txt"""
PATH_WIDTH = 48  # characters of a path in the title of a table


def make_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser("score", __doc__ or "", EXAMPLE)
    add_inputs(parser)
    add_settings(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--wide",
        action="store_true",
        help="one table, however wide, instead of several that fit 80 columns",
    )
    parser.add_argument(
        "--heatmaps",
        type=Path,
        metavar="DIR",
        help="also write an attention map of each word for each image and caption",
    )
    add_quiet(parser)
    return parser


def add_inputs(parser: Parser) -> None:
    """Add the options that name images and captions."""
    parser.add_argument(
        "--image",
        action="extend",
        nargs="+",
        required=True,
        metavar="FILE",
        help="images, or patterns such as 'photos/*.jpg'; repeatable",
    )
    parser.add_argument(
        "--caption",
        action="extend",
        nargs="+",
        default=[],
        metavar="TEXT",
        help="captions; repeatable",
    )
    parser.add_argument(
        "--captions",
        metavar="FILE",
        help="a text file with a caption in each line; - is stdin",
    )


def add_settings(parser: Parser) -> None:
    """Add the options that say by what model, prompts and method pairs are scored."""
    add_weights(parser)
    add = parser.add_argument
    add(
        "--prompts",
        metavar="DIR",
        help="a folder of prompts that train wrote, such as "
        "runs/emoji/prompts/adapted-256/seed-0; sets the default of --method and --timesteps",
    )
    add(
        "--method",
        help="attention, noise, noise-l1, noise-huber, itm, relative or dsd; default: the method "
        "of the prompts, or dsd",
    )
    add(
        "--timesteps",
        type=int,
        metavar="N",
        help="number of timesteps to average over; more are slower and more exact; default: the "
        "number of the prompts, or 10",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the noise; default: %(default)s")
    add(
        "--force",
        action="store_true",
        help="use prompts for a method, timesteps or weights that they were not learned for",
    )


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = make_parser().parse_args(argv)
    images = check(flags)
    with Stage("starting", shown=not flags.quiet):
        import numpy as np  # heavy: after the arguments are known to be good

        import dsd_jax
        from dsd_jax.distributed.devices import check_devices

        check_devices()
    model = dsd_jax.load(flags.weights, progress=not flags.quiet)
    if not flags.quiet:
        show_plan(model, flags)
    scores = dsd_jax.match_scores(
        model,
        images,
        flags.caption,
        method=flags.method,
        timesteps=flags.timesteps,
        seed=flags.seed,
        prompts=flags.prompts,
        progress=not flags.quiet,
        force=flags.force,
    )
    scores = np.asarray(scores)
    if not np.isfinite(scores).all():
        raise UserError(
            f"{flags.weights} gives scores that are not finite; look for damaged weights, or for "
            "prompts that were learned for others."
        )
    files: list[str] = []
    try:
        if flags.heatmaps:
            write_heatmaps(model, images, flags, files)
    finally:  # scores are not lost where heat maps fail
        print(as_json(flags, scores, files) if flags.json else as_table(flags, scores, files))


def check(flags: Namespace) -> list["Image.Image"]:
    """Check the arguments as far as that needs no model; return the images."""
    from dsd_jax.config.score_spec import method_named
    from dsd_jax.io.images import open_image
    from dsd_jax.io.input_lists import expand_patterns, read_texts
    from dsd_jax.io.storage import make_local_folder
    from dsd_jax.io.validation import check_seed
    from dsd_jax.prompts.prompt_compatibility import score_settings

    for number, caption in enumerate(flags.caption, 1):
        check_text(caption, f"--caption number {number}")
        if not caption.strip():
            raise UserError(f"--caption number {number} is empty; give each caption some text.")
    if flags.captions is not None:
        flags.caption = flags.caption + read_texts(flags.captions, "--captions")
    if not flags.caption:
        raise UserError("there is no caption; give some by --caption TEXT or --captions=FILE.")
    flags.image = expand_patterns(flags.image, "--image")
    if flags.method is not None:
        method_named(flags.method)  # before anything is read
    if flags.timesteps is not None and not 1 <= flags.timesteps <= 1000:
        raise UserError(f"--timesteps={flags.timesteps} should be from 1 to 1000.")
    check_seed(flags.seed, "--seed")
    if flags.prompts and not Path(flags.prompts).is_dir():
        raise UserError(
            f"--prompts={flags.prompts} is not a folder; give the one train has written."
        )
    flags.method, flags.timesteps = score_settings(
        flags.prompts, flags.method, flags.timesteps, force=flags.force
    )
    if flags.heatmaps:
        make_local_folder(flags.heatmaps, "--heatmaps")
    return [open_image(path) for path in flags.image]


def show_plan(model: "Model", flags: Namespace) -> None:
    """Print the banner: what is scored by what."""
    from dsd_jax.diffusion.model_facts import device_fact, model_fact

    images, captions = count_of(len(flags.image), "image"), count_of(len(flags.caption), "caption")
    timesteps = count_of(flags.timesteps, "timestep")
    facts = {
        "model": model_fact(model),
        "device": device_fact(model.dtype.name),
        "prompts": flags.prompts or "",
        "score": f"{images} x {captions} by {flags.method}, {timesteps}",
        "maps": str(flags.heatmaps or ""),
    }
    show_banner("score", facts)


def write_heatmaps(
    model: "Model", images: Sequence["Image.Image"], flags: Namespace, written: list[str]
) -> None:
    """Write a PNG for each image and caption; append each path to `written` once it is there."""
    import dsd_jax
    from dsd_jax.matching.plot_heatmaps import file_name

    count = len(images) * len(flags.caption)
    with Stage("heat maps", count, shown=not flags.quiet) as stage:
        for i, image in enumerate(images):
            for c, caption in enumerate(flags.caption):
                explanation = dsd_jax.explain(
                    model,
                    image,
                    caption,
                    timesteps=flags.timesteps,
                    seed=flags.seed,
                    prompts=flags.prompts,
                    force=flags.force,
                )
                path = flags.heatmaps / file_name(i + 1, Path(flags.image[i]).stem, c + 1)
                explanation.save(path)
                written.append(str(path))
                stage.advance()


def as_json(flags: Namespace, scores: "np.ndarray", files: Sequence[str]) -> str:
    """Return scores and settings as JSON."""
    result = {
        "weights": flags.weights,
        "prompts": flags.prompts,
        "method": flags.method,
        "timesteps": flags.timesteps,
        "seed": flags.seed,
        "images": flags.image,
        "captions": flags.caption,
        "scores": scores.tolist(),
        "best_caption": scores.argmax(axis=1).tolist(),
    }
    if files:
        result["heatmaps"] = list(files)
    return json.dumps(result, indent=1, allow_nan=False)


def as_table(flags: Namespace, scores: "np.ndarray", files: Sequence[str]) -> str:
    """Return a table of captions by images, in which the best caption of each image is marked."""
    from dsd_jax.matching.score_table import WIDTH, score_blocks, short_names

    weights = shorten_path(flags.weights, PATH_WIDTH)
    learned = f" and prompts {shorten_path(flags.prompts, PATH_WIDTH)}" if flags.prompts else ""
    best = "; * best caption of the image" if len(flags.caption) > 1 else ""
    title = (
        f"{flags.method} scores by {weights}{learned}, {flags.timesteps} timesteps, "
        f"seed {flags.seed} (higher fits better{best})"
    )
    if not flags.wide:
        title = "\n".join(wrap(title, WIDTH, break_long_words=False, break_on_hyphens=False))
    names = short_names(flags.image)
    blocks = score_blocks(scores, flags.caption, names, wide=flags.wide)
    if files:
        blocks.append("\n".join(["Heat maps:", *(f"  {path}" for path in files)]))
    return "\n\n".join([title, *blocks])


if __name__ == "__main__":
    run_command(main)
