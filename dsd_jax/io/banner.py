"""The banner of a command: what it is about to do, in a few lines on stderr."""

import textwrap
from collections.abc import Mapping

from dsd_jax.io.terminal import printable, say

WIDTH = 80  # columns


def show_banner(title: str, facts: Mapping[str, str]) -> None:
    """Print a title and facts about it, each under its name; those without a text are left out."""
    say(format_banner(title, facts))


def format_banner(title: str, facts: Mapping[str, str]) -> str:
    """Return the lines of a banner, none longer than `WIDTH` unless a word is."""
    named = {name: printable(text) for name, text in facts.items() if text}
    width = max(map(len, named), default=0)
    lines = [printable(title)]
    for name, text in named.items():
        first, further = f"  {name.ljust(width)}  ", " " * (width + 4)
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=first,
            subsequent_indent=further,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)


def count_of(number: int, noun: str) -> str:
    """Return a number with its noun, such as "1 image" or "1,200 images"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
