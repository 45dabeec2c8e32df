"""What a policy is, apart from its weights: plain values that are stored with it and rebuild it."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from common.errors import UserError
from policies.class_paths import class_path_of, is_own, network_class
from policies.networks import NoiseNetwork
from policies.rotations import Rotations6D
from policies.schedule import DiffusionConfig

# Raised when the meaning of a stored field changes; a file of another version is refused with a message.
FORMAT_VERSION = 1
# How this project's networks react to options that make no sense to them. One that a user wrote may have faults, whose
# traceback its author needs.
REFUSALS = (TypeError, ValueError, RuntimeError, ArithmeticError, MemoryError, LookupError)


@dataclass
class NetworkConfig:
    """The noise network by name.

    Args:
        class_path: import path of a ``policies.networks.NoiseNetwork`` subclass.
        init_args: its options beside the dimensions; plain JSON values.
    """

    class_path: str = "policies.networks.MLPNoiseNetwork"
    init_args: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.class_path, str) or not isinstance(self.init_args, dict):
            raise TypeError("network needs a class_path (text) and init_args (a mapping)")
        self.init_args = _plain(self.init_args, "init_args")

    @classmethod
    def describe(cls, factory: Callable[..., NoiseNetwork]) -> "NetworkConfig":
        """The description of a ``NoiseNetwork`` class, or of a ``functools.partial`` that gives it keyword options.

        Raises:
            UserError: the class could not be found again, or an option could not be stored.
        """
        described = factory
        while isinstance(described, partial):
            # jsonargparse hands the class to its own instantiator as an argument.
            described = described.args[-1] if described.args else described.func
        class_path = class_path_of(described)
        try:
            return cls(class_path, dict(factory.keywords) if isinstance(factory, partial) else {})
        except TypeError as error:
            raise UserError(f"network {class_path}: {error}") from error

    def build(self, obs_dim: int, action_dim: int, pred_horizon: int, num_train_timesteps: int) -> NoiseNetwork:
        """Instantiate the network and try it on a batch of zeros.

        Raises:
            UserError: the class is not there, is no ``NoiseNetwork``, does not take the options, or predicts something
                of another shape than an action chunk.
        """
        found = network_class(self.class_path)
        arguments = {
            "obs_dim": obs_dim,
            "action_dim": action_dim,
            "pred_horizon": pred_horizon,
            "num_train_timesteps": num_train_timesteps,
            **self.init_args,
        }
        refusal = f"network {self.class_path} does not accept init_args {self.init_args}"
        try:
            inspect.signature(found).bind(**arguments)
        except TypeError as error:
            raise UserError(f"{refusal}: {error}") from error
        try:
            network = found(**arguments)
        except REFUSALS as error:
            if not is_own(self.class_path):
                raise
            raise UserError(f"{refusal}: {error}") from error
        self._try(network, obs_dim, (2, pred_horizon, action_dim))
        return network

    def _try(self, network: NoiseNetwork, obs_dim: int, expected: tuple[int, int, int]) -> None:
        # Of another shape, a prediction would broadcast against the target, and train.
        modes = [(module, module.training) for module in network.modules()]
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            predicted = network.eval()(torch.zeros(expected), torch.zeros(2, dtype=torch.long), torch.zeros(2, obs_dim))
        for module, mode in modes:
            module.training = mode
        found = tuple(predicted.shape) if isinstance(predicted, torch.Tensor) else type(predicted).__name__
        if found != expected:
            raise UserError(
                f"network {self.class_path} gives {found} for 2 chunks of {expected[1]} actions of {expected[2]}: "
                f"expected a tensor of shape {expected}, as the noisy chunks that it is given"
            )


@dataclass
class PolicySpec:
    """Everything but the weights.

    Args:
        obs_dims: observation key -> size, in the order in which they are concatenated.
        action_dim: size of one action.
        pred_horizon: actions per chunk.
        network: the noise network.
        diffusion: the diffusion process.
        env_args: Robomimic's description of the environment, None where the data had none.
        task: short name of one of this project's tasks ("lift"), or None for another one.
        data_sha256: fingerprint of the training data.
        quaternions: where a unit quaternion begins in the flat observation that the network gets as a 6D rotation.
        weights: "ema" or "raw".
        train_step: optimiser steps behind the weights.
    """

    obs_dims: dict[str, int]
    action_dim: int
    pred_horizon: int
    network: NetworkConfig = field(default_factory=NetworkConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    env_args: dict[str, Any] | None = None
    task: str | None = None
    data_sha256: str | None = None
    quaternions: list[int] = field(default_factory=list)
    weights: str = "raw"
    train_step: int = 0

    def __post_init__(self) -> None:
        self._check()

    @property
    def obs_keys(self) -> list[str]:
        return list(self.obs_dims)

    @property
    def obs_dim(self) -> int:
        return sum(self.obs_dims.values())

    @property
    def feature_dim(self) -> int:
        """Size of a normalised observation, as networks and SAC get it."""
        return self.obs_dim + 2 * len(self.quaternions)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the format version."""
        return {"format_version": FORMAT_VERSION, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, values: Any, source: str) -> "PolicySpec":
        """Rebuild from ``to_dict``'s result.

        Args:
            values: what the file held.
            source: the file's name, for messages.

        Raises:
            UserError: another format version, or fields that are missing, unknown or of the wrong kind.
        """
        if not isinstance(values, dict) or "format_version" not in values:
            raise UserError(f"{source} is not a policy of this project: it carries no policy description")
        version = values["format_version"]
        if version != FORMAT_VERSION:
            raise UserError(
                f"{source} has policy format {version!r}, this version of the project reads format {FORMAT_VERSION}: "
                "export the policy again with the version that trained it, or train again"
            )
        fields = {key: value for key, value in values.items() if key != "format_version"}
        try:
            fields["network"] = NetworkConfig(**fields["network"])
            fields["diffusion"] = DiffusionConfig(**fields["diffusion"])
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{source} holds a damaged policy description: {error}") from error

    def _check(self) -> None:
        dims = {"action_dim": self.action_dim, "pred_horizon": self.pred_horizon}
        if not isinstance(self.obs_dims, dict) or not self.obs_dims:
            raise ValueError(f"obs_dims must map observation keys to sizes, found {self.obs_dims!r}")
        for name, value in {**dims, **self.obs_dims}.items():
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 1_000_000:
                raise ValueError(f"{name} must be a positive whole number, found {value!r}")
        if not isinstance(self.quaternions, list) or any(type(start) is not int for start in self.quaternions):
            raise ValueError(f"quaternions must be a list of whole numbers, found {self.quaternions!r}")
        Rotations6D(self.obs_dim, self.quaternions)
        kinds = {"env_args": dict, "task": str, "data_sha256": str}
        for name, kind in kinds.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(f"{name} must be a {kind.__name__} or null, found {value!r}")
        if self.weights not in ("ema", "raw") or not isinstance(self.train_step, int):
            raise ValueError(
                f'weights must be "ema" or "raw" and train_step whole, found {self.weights!r}, {self.train_step!r}'
            )


def _plain(value: Any, where: str) -> Any:
    """``value`` as JSON gives it back: numbers, texts, booleans, null, lists and mappings of them.

    Raises:
        TypeError: it is something else, so no file could hold it.
    """
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) in (list, tuple):
        return [_plain(each, f"{where}[{i}]") for i, each in enumerate(value)]
    if isinstance(value, dict) and all(type(key) is str for key in value):
        return {key: _plain(each, f"{where}.{key}") for key, each in value.items()}
    raise TypeError(
        f"{where} is {value!r}: expected a number, text, true, false, null, or a list or mapping of them with texts as "
        "keys. Give a class or function by a name that the network looks up itself, such as act: tanh"
    )
