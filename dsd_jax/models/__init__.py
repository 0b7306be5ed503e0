"""The networks of Stable Diffusion and CLIP as Flax modules, their configs and tensor names.

Params, pixels or latents and token ids enter; predictions, reduced attention logits, latents and
text states leave. Nothing else in `dsd_jax` imports Flax. All packages but `errors`, `io` and those
beside this one may import it.

Dims, in annotations, einsums and comments: B rows of a batch (R rows of latents before they meet
captions), I images, C captions, S sets of J captions, H heads, N queries (h*w), L tokens, D
channels, E dims of CLIP's vectors; h, w latent height and width.
"""
