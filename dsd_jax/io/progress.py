"""Progress bars that are told shares of a whole."""

from tqdm import tqdm


def advance(bar: tqdm, amount: float) -> None:
    """Advance a bar, never beyond its total: shares that add up to one may round to more."""
    bar.update(max(0.0, min(amount, bar.total - bar.n)))
