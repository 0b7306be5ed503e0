"""CLIP, the rival that the diffusion matcher is measured against: zero-shot and fine-tuned."""
