"""Show what a run of `train` or `evaluate` is about to do, in a banner."""

from collections import Counter
from collections.abc import Sequence

from dsd_jax.benchmarks.splits import Split
from dsd_jax.diffusion.model_facts import device_fact, model_fact
from dsd_jax.experiment.run_times import earlier_seconds
from dsd_jax.experiment.setup import Experiment
from dsd_jax.experiment.sweep import shot_draws
from dsd_jax.io.banner import count_of, show_banner
from dsd_jax.io.progress import duration


def show_plan(experiment: Experiment, prompts: Sequence[str] = ()) -> None:
    """Print the banner, where progress is shown.

    Args:
        experiment: that is about to be run.
        prompts: the folders of prompts that are scored, too.
    """
    if not experiment.progress:
        return
    config, command = experiment.config, experiment.workdir.command
    device = device_fact(experiment.model.dtype.name)
    facts = {
        "model": model_fact(experiment.model),
        "device": device,
        "CLIP": experiment.clip.name if experiment.clip else "",
        "learn": _learning(experiment) if command == "train" else "",
        "prompts": ", ".join(prompts),
        "score": "; ".join(map(_split, experiment.splits)),
        "methods": ", ".join(spec.label for spec in experiment.specs)
        + f"; {count_of(config.timesteps, 'timestep')}",
        "time": _time(experiment, device),
        "results": str(experiment.workdir.folder / "report.html"),
    }
    show_banner(f"{command}: {experiment.benchmark.name}", facts)


def _time(experiment: Experiment, device: str) -> str:
    """Return the time that the same job took here before, if it has run, in words."""
    workdir = experiment.workdir
    seconds = earlier_seconds(workdir.command, workdir.settings, device)
    if seconds is None and experiment.is_resumed:
        return "not known; some of it is done, and it goes on from there"
    if seconds is None:
        return "not known before its first run here; each stage tells what is left of it"
    rest = "; some of it is done" if experiment.is_resumed else ""
    return f"about {duration(seconds)}, as when it last ran here{rest}"


def _learning(experiment: Experiment) -> str:
    """Return what is learned from how many shots."""
    config = experiment.config
    if not config.recipes:
        return ""
    draws = list(shot_draws(experiment))
    counts = " or ".join(str(count) for count in dict.fromkeys(draw.count for draw in draws))
    seeds = count_of(config.seeds, "draw")
    return f"{', '.join(config.recipes)} from {counts} pairs of {config.shots_from}, {seeds}"


def _split(split: Split) -> str:
    """Return a split's name, and how many items of which kinds are scored."""
    images, captions = split.shape
    kinds = Counter(split.kinds)
    sizes = sorted(set(kinds.values()))
    each = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    of_kinds = f", {each} of each of {len(kinds)} kinds" if len(kinds) > 1 else ""
    return (
        f"{split.name}, {count_of(split.count, 'item')} of {count_of(images, 'image')} x "
        f"{count_of(captions, 'caption')}{of_kinds}"
    )
