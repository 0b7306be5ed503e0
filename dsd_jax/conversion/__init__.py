"""To and from PyTorch: adapters of the UNet's attention layers, and whole models."""
