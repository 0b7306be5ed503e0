"""Training the bundled Stable Diffusion from scratch: VAE, then text tower, then UNet."""
