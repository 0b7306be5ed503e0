"""The training of the bundled models from scratch: Stable Diffusion in three phases, CLIP in one.

A pre-training config and a workdir enter; averaged params leave, written as a folder in the Hugging
Face layout. Each phase module holds a phase's batches, loss and run; `train_phase` holds what all
share. Only the command `pretrain` may import it.
"""
