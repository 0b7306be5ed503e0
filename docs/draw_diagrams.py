"""Draws the diagrams of the method and of the architecture into docs/_static.

python docs/draw_diagrams.py
They have a ground of their own and follow the reader's light or dark mode.
"""

import base64
import html
from pathlib import Path

DOCS = Path(__file__).parent
STYLE = """
svg { font: 15px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
.ground { fill: #fbfaf8; } text { fill: #1d2128; } .small { font-size: 13px; }
.bold { font-weight: 600; } .box { fill: #ffffff; stroke: #8b93a3; stroke-width: 1.5; }
.frozen { fill: #e9edf3; } .learned { fill: #fbeadf; stroke: #bf3f0f; }
.score { fill: #1d2128; stroke: #1d2128; } .on-score { fill: #ffffff; }
.line { fill: none; stroke: #566280; stroke-width: 1.8; } .tip { fill: #566280; }
.trained { stroke: #bf3f0f; } .trained-tip { fill: #bf3f0f; }
@media (prefers-color-scheme: dark) {
  .ground { fill: #14181f; } text { fill: #e8eaee; } .box { fill: #1e242e; stroke: #78829a; }
  .frozen { fill: #2a3342; } .learned { fill: #43261a; stroke: #f08a5d; }
  .score { fill: #e8eaee; stroke: #e8eaee; } .on-score { fill: #14181f; }
  .line { stroke: #9aa6bd; } .tip { fill: #9aa6bd; }
  .trained { stroke: #f08a5d; } .trained-tip { fill: #f08a5d; }
}
"""


def text(x: float, y: float, line: str, kind: str = "", anchor: str = "middle") -> str:
    """Return a line of text; its anchor is at (x, y)."""
    line = html.escape(line)
    return f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{line}</text>'


def box(x: float, y: float, width: float, height: float, lines: list[str], kind: str = "") -> str:
    """Return a box with centered lines, the first one bold."""
    on = "on-score" if kind == "score" else ""
    first = y + height / 2 + 5 - 10 * (len(lines) - 1)
    words = [
        text(x + width / 2, first + 20 * i, line, f"{on} {'small' if i else 'bold'}")
        for i, line in enumerate(lines)
    ]
    frame = f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="10" class="box {kind}"/>'
    return frame + "".join(words)


def arrow(*points: tuple[float, float], kind: str = "") -> str:
    """Return a line through points, with a tip at its end; its last part is straight."""
    (x0, y0), (x, y) = points[-2:]
    dx, dy = (x > x0) - (x < x0), (y > y0) - (y < y0)
    path = "M" + " L".join(f"{a},{b}" for a, b in [*points[:-1], (x - 8 * dx, y - 8 * dy)])
    back, side = (x - 11 * dx, y - 11 * dy), (5 * dy, 5 * dx)
    tip = f"{x},{y} {back[0] + side[0]},{back[1] + side[1]} {back[0] - side[0]},{back[1] - side[1]}"
    tip_kind = f"{kind}-tip" if kind else "tip"
    return f'<path d="{path}" class="line {kind}"/><polygon points="{tip}" class="{tip_kind}"/>'


def picture(x: float, y: float, side: float, path: Path) -> str:
    """Return an image file as part of the drawing."""
    data = base64.b64encode(path.read_bytes()).decode()
    return (
        f'<image x="{x}" y="{y}" width="{side}" height="{side}" '
        f'href="data:image/png;base64,{data}"/>'
    )


def method() -> str:
    """Return the drawing of how one picture and one caption become a score."""
    parts = [
        # the picture
        picture(28, 40, 96, DOCS / "cat-left.png"),
        text(76, 156, "picture", "small"),
        arrow((124, 88), (160, 88)),
        box(160, 58, 120, 60, ["VAE", "frozen"], "frozen"),
        arrow((280, 88), (320, 88)),
        box(320, 58, 150, 60, ["add noise", "of known level t"]),
        arrow((395, 118), (395, 180)),
        # the caption
        box(28, 196, 150, 76, ["caption", "“a cat to the left", "of an apple”"]),
        arrow((178, 234), (204, 234)),
        box(204, 204, 110, 60, ["CLIP text", "frozen"], "frozen"),
        arrow((314, 234), (350, 234)),
        box(28, 300, 150, 50, ["empty caption", "to compare with"]),
        arrow((178, 325), (259, 325), (259, 264)),
        # the UNet
        box(
            350, 180, 170, 170, ["UNet", "frozen", "one pass per pair", "and noise level"], "frozen"
        ),
        box(350, 412, 170, 60, ["prompts", "all that is learned"], "learned"),
        arrow((435, 412), (435, 350), kind="trained"),
        text(334, 438, "from a few labelled pairs:", "small", "end"),
        text(334, 456, "LoRA, tokens or weights", "small", "end"),
        # what is read from it
        arrow((520, 215), (570, 215)),
        box(570, 176, 190, 78, ["cross-attention", "how strongly each place", "answers the words"]),
        arrow((520, 315), (570, 315)),
        box(570, 276, 190, 78, ["noise error", "E with the caption,", "U with the empty one"]),
        text(805, 206, "attention", "small"),
        arrow((760, 215), (850, 215), (850, 235)),
        text(861, 340, "noise, itm, relative", "small"),
        arrow((760, 315), (850, 315), (850, 295)),
        box(790, 235, 142, 60, ["score", "mean over t"], "score"),
        text(861, 362, "both together: dsd", "small"),
        text(861, 402, "higher fits better", "small bold"),
        # the other thing that it gives
        arrow((665, 176), (665, 118)),
        box(570, 58, 190, 60, ["heat maps", "where a word looks"]),
    ]
    return drawing("How one picture and one caption become a score", (960, 500), parts)


def architecture() -> str:
    """Return the drawing of the packages that a score passes through."""
    parts = [
        box(30, 24, 170, 54, ["model folder", "or Hub"]),
        arrow((115, 78), (115, 114)),
        box(30, 114, 170, 54, ["weights", "by tensor_files"], "frozen"),
        arrow((115, 168), (115, 204)),
        box(30, 204, 170, 74, ["diffusion", "a loaded Model, of", "networks in models"], "frozen"),
        arrow((200, 231), (270, 231)),
        arrow((115, 278), (115, 349), (270, 349)),
        box(270, 24, 170, 54, ["annotations", "and images"]),
        arrow((355, 78), (355, 114)),
        box(270, 114, 170, 54, ["data", "items of a benchmark"], "frozen"),
        arrow((355, 168), (355, 204)),
        box(270, 204, 170, 54, ["benchmarks", "encoded once"], "frozen"),
        arrow((355, 258), (355, 312)),
        box(270, 312, 170, 74, ["matching", "outputs of pairs, scores,", "heat maps"], "score"),
        arrow((440, 365), (510, 365)),
        box(510, 312, 170, 74, ["few_shot", "learning, by the loop", "of training"], "frozen"),
        arrow((680, 349), (750, 349)),
        arrow((410, 312), (410, 285), (790, 285), (790, 312)),
        text(600, 277, "scores", "small"),
        arrow((595, 386), (595, 453), (440, 453), kind="trained"),
        box(270, 426, 170, 54, ["prompts", "all that is learned"], "learned"),
        arrow((355, 426), (355, 386), kind="trained"),
        box(30, 426, 170, 54, ["conversion", "LoRA of PyTorch"], "frozen"),
        arrow((200, 446), (270, 446)),
        arrow((270, 462), (200, 462)),
        box(750, 24, 170, 54, ["config file", "and overrides"]),
        arrow((870, 78), (870, 114)),
        box(750, 114, 170, 54, ["config", "typed and checked"], "frozen"),
        arrow((870, 168), (870, 312)),
        box(750, 312, 170, 74, ["experiment", "one run", "and its folder"], "frozen"),
        arrow((835, 426), (835, 386)),
        box(750, 426, 170, 54, ["clip", "to compare with"], "frozen"),
        arrow((920, 349), (980, 349)),
        box(980, 312, 150, 74, ["report", "with errors of", "statistics"], "frozen"),
    ]
    return drawing("The packages that a score passes through", (1160, 504), parts)


def drawing(title: str, size: tuple[int, int], parts: list[str]) -> str:
    """Return an SVG file with a ground under the parts."""
    (width, height), name = size, html.escape(title)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img"><title>{name}</title>'
    )
    ground = f'<rect width="{width}" height="{height}" rx="16" class="ground"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    for diagram in (method, architecture):
        path = DOCS / "_static" / f"{diagram.__name__}.svg"
        path.write_text(diagram(), encoding="utf-8")
