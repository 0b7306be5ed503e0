"""What parity tests share: PyTorch's UNet with its attention logits written down, and arrays."""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch

TOLERANCE = 1e-4


def assert_close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=TOLERANCE)


def nchw(x):
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def nhwc(x):
    return np.moveaxis(x.detach().numpy(), 1, -1)


class Recorder:
    """An attention processor that writes down the mean LSE of its logits, and can add tokens."""

    def __init__(self, store, path, tokens):
        self.store, self.path, self.tokens = store, path, tokens

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, **_):
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context)
        if self.path in self.tokens:
            extra = self.tokens[self.path]
            key, value = (
                torch.cat([x, torch.from_numpy(extra[name]).expand(len(x), -1, -1)], dim=1)
                for x, name in ((key, "key"), (value, "value"))
            )
        query, key, value = (
            x.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for x in (query, key, value)
        )
        logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        if encoder_hidden_states is not None:
            self.store[self.path] = logits.logsumexp(-1).mean(-1)
        out = (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
        return attn.to_out[0](out)


@contextlib.contextmanager
def recorded(unet, tokens: dict | None = None) -> Iterator[dict]:
    """Within it, calls of `unet` leave {path: (B, N)} in the dict, and attend to `tokens` too."""
    store, kept = {}, unet.attn_processors
    unet.set_attn_processor(
        {name: Recorder(store, name.removesuffix(".processor"), tokens or {}) for name in kept}
    )
    yield store
    unet.set_attn_processor(kept)


def make_sensitive(unet) -> None:
    """Random weights by which a wrong scale, head or norm shows."""
    with torch.no_grad():
        for name, parameter in unet.named_parameters():
            if "attn2.to_q" in name or "attn2.to_k" in name:
                parameter *= 4
            elif name.endswith("bias") or "norm" in name:
                parameter += 0.2 * torch.randn_like(parameter)


def spread(network, scale: float = 0.1) -> None:
    """Moves every weight at random, so that no two norms or biases are the same."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += scale * torch.randn_like(parameter)
