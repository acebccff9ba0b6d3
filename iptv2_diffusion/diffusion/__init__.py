"""Class-conditional latent diffusion: denoiser, schedule, objective, guidance, latents, pipeline."""
