"""Readers of pictures and latents."""
