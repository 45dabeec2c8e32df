"""LightningModules of the project."""

from lightning_modules.diffusion_bc import DiffusionBC

__all__ = ["DiffusionBC"]
