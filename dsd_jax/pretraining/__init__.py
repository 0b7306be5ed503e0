"""Training the bundled Stable Diffusion from scratch: first its VAE, then text tower and UNet."""
