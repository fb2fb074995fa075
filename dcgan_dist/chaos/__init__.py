"""Training killed again and again, and compared with an unbroken run: `python -m dcgan_dist.chaos`."""
