"""A policy as one ONNX graph: observations in raw units in, actions in the environment's units out."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.controllers import are_absolute
from common.errors import UserError
from common.files import atomic_path
from dsrl.agent import SteeredAgent
from dsrl.networks import best_draw
from policies import DiffusionPolicy

OPSET = 20


class Decoder(nn.Module):
    """The diffusion policy with its normalisers inside and the DDIM steps unrolled."""

    def __init__(self, policy: DiffusionPolicy, ddim_steps: int) -> None:
        super().__init__()
        self.policy, self.ddim_steps = policy, ddim_steps

    def forward(self, obs: Tensor, noise: Tensor) -> Tensor:
        """(B, obs_dim) and (B, pred_horizon, action_dim) standard normal to (B, pred_horizon, action_dim)."""
        noise = self.policy.spec.diffusion.noise_scale * noise
        return self.policy.denoise(self.policy.normalize_obs(obs), noise, self.ddim_steps)


class SteeredDecoder(nn.Module):
    """The actor that chooses the noise, and the diffusion policy that decodes it."""

    def __init__(self, agent: SteeredAgent, policy: DiffusionPolicy, ddim_steps: int) -> None:
        super().__init__()
        self.networks, self.pessimism = agent.networks.requires_grad_(False), agent.config.target_pessimism
        self.magnitude = agent.scale.magnitude
        self.policy, self.ddim_steps = policy, ddim_steps

    def forward(self, obs: Tensor, noise: Tensor) -> Tensor:
        """As ``Decoder``; ``noise`` (B, candidates, pred_horizon, action_dim) is what the actor draws with."""
        seen = self.policy.normalize_obs(obs)
        scaled = best_draw(self.networks, self.networks.played_actor, seen, noise.flatten(2), self.pessimism)
        chosen = (self.magnitude * scaled).view(-1, *self.policy.chunk_shape)
        return self.policy.denoise(seen, chosen, self.ddim_steps)


class SteeredMean(SteeredDecoder):
    """The steered policy where its actor's mean is played: nothing is drawn."""

    def forward(self, obs: Tensor) -> Tensor:  # type: ignore[override]
        """(B, obs_dim) to (B, pred_horizon, action_dim)."""
        return super().forward(obs, obs.new_zeros(obs.shape[0], 1, *self.policy.chunk_shape))


def write_onnx(path: Path, policy: DiffusionPolicy, ddim_steps: int, agent: SteeredAgent | None = None) -> list[str]:
    """Write the graph, whole or not at all.

    Args:
        path: the .onnx file.
        policy: on the CPU, in eval mode.
        ddim_steps: denoising steps, unrolled.
        agent: the steered policy; its actor's mean or draws, as it plays. None: the policy by itself.

    Returns:
        Names of the graph's inputs.

    Raises:
        UserError: the packages that write ONNX are not installed.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 - torch.onnx needs it, and says so only in a traceback
    except ModuleNotFoundError as error:
        raise UserError(f"ONNX files need the package {error.name}: pip install '.[onnx]'") from error
    graph: nn.Module = Decoder(policy, ddim_steps)
    drawn: tuple[int, ...] = policy.chunk_shape
    if agent is not None:
        graph = (SteeredMean if agent.deterministic else SteeredDecoder)(agent, policy, ddim_steps)
        drawn = (agent.config.candidates, *drawn)
    example = {"obs": torch.zeros(2, policy.spec.obs_dim), "noise": torch.zeros(2, *drawn)}
    if isinstance(graph, SteeredMean):
        del example["noise"]
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "# The axis name: batch will not be used")  # it is: of both inputs
        program = torch.onnx.export(
            graph.eval(),
            tuple(example.values()),
            input_names=list(example),
            output_names=["actions"],
            dynamic_shapes={name: {0: batch} for name in example},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in _metadata(policy, ddim_steps).items()})
    onnx.checker.check_model(model)
    with atomic_path(path) as partial:
        partial.write_bytes(model.SerializeToString())
    return list(example)


def _metadata(policy: DiffusionPolicy, ddim_steps: int) -> dict[str, Any]:
    """What a program that has only the file must know; each value as JSON."""
    spec = policy.spec
    poses = are_absolute(spec.env_args)
    return {
        "task": spec.task,
        "env_args": spec.env_args,
        "obs": spec.obs_dims,  # key -> size, in the order of concatenation
        "obs_units": "as robosuite observes: m, unit quaternions (x, y, z, w)",
        "action_units": "as robosuite's controller takes them: " + ("poses" if poses else "motions in [-1, 1]"),
        "pred_horizon": spec.pred_horizon,  # actions per chunk, at 20 Hz, executed open loop
        "ddim_steps": ddim_steps,
        "data_sha256": spec.data_sha256,
    }
