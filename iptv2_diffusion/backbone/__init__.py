"""The U-shaped network that restoration and latent diffusion share."""
