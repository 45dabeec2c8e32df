"""The diffusion policy in plain PyTorch."""

from policies.diffusion_policy import DiffusionPolicy, load_policy
from policies.schedule import DiffusionConfig
from policies.spec import NetworkConfig, PolicySpec

__all__ = ["DiffusionConfig", "DiffusionPolicy", "NetworkConfig", "PolicySpec", "load_policy"]
