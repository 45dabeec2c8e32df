"""The ONNX graphs compute what the policies compute, and run without torch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from commands.export import export
from common.errors import UserError
from dsrl.agent import load_steered_agent
from dsrl.archive import write_archive
from dsrl.config import DSRLConfig
from dsrl.trainer import Trainer
from envs.pool import EnvPool
from envs.tasks import default_env_args
from policies import DiffusionConfig, DiffusionPolicy, NetworkConfig, PolicySpec
from rollouts.loop import Episode
from rollouts.simulation import simulation_of
from tests.training_toy import ROOT

N = 1000


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DiffusionPolicy]:
    """A policy of Lift that nobody trained, with half the noise."""
    dims = {"robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2, "object": 10}
    network = NetworkConfig(init_args={"hidden_dims": [32, 32]})
    torch.manual_seed(0)
    made = DiffusionPolicy(
        PolicySpec(
            dims,
            7,
            4,
            network,
            DiffusionConfig(noise_scale=0.5),
            env_args=default_env_args("lift"),
            task="lift",
            quaternions=[3, 12],
        )
    ).eval()
    made.action_normalizer.set_range(-torch.rand(4, 7), torch.rand(4, 7))
    path = tmp_path_factory.mktemp("policy") / "policy.safetensors"
    made.save(path)
    return path, made


def run(path: Path, **inputs: np.ndarray) -> tuple[np.ndarray, dict[str, str]]:
    session = onnxruntime.InferenceSession(path)
    assert [each.name for each in session.get_inputs()] == list(inputs)
    return session.run(None, inputs)[0], session.get_modelmeta().custom_metadata_map


def test_the_graph_of_an_ensemble(tmp_path: Path) -> None:
    network = NetworkConfig("policies.networks.MLPEnsemble", {"members": 3, "hidden_dims": [32, 32]})
    ensemble = DiffusionPolicy(PolicySpec({"state": 5}, 3, 2, network)).eval()
    ensemble.save(tmp_path / "policy.safetensors")
    export(tmp_path / "policy.safetensors", tmp_path / "ensemble.onnx")
    obs, noise = 2 * torch.rand(N, 5) - 1, torch.randn(N, 2, 3)
    actions, _ = run(tmp_path / "ensemble.onnx", obs=obs.numpy(), noise=noise.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(actions, ensemble.decode(obs, noise), atol=1e-5)


def test_the_graph_decodes_as_the_policy_does(policy: tuple[Path, DiffusionPolicy], tmp_path: Path) -> None:
    path, torch_policy = policy
    export(path, tmp_path / "five.onnx", ddim_steps=5)
    obs, noise = 2 * torch.rand(N, 19) - 1, torch.randn(N, 4, 7)
    actions, about = run(tmp_path / "five.onnx", obs=obs.numpy(), noise=noise.numpy())
    with torch.inference_mode():
        np.testing.assert_allclose(actions, torch_policy.decode(obs, 0.5 * noise, 5), atol=1e-5)
    assert json.loads(about["ddim_steps"]) == 5
    assert json.loads(about["obs"]) == torch_policy.spec.obs_dims
    assert json.loads(about["env_args"]) == torch_policy.spec.env_args
    deploy = [sys.executable, str(ROOT / "examples/deploy.py"), str(tmp_path / "five.onnx")]
    script = (
        "import sys; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; import time; time.sleep = lambda _: None\n"
    )
    script += "import runpy; runpy.run_path(sys.argv[0])"
    ran = subprocess.run([sys.executable, "-c", script, *deploy[1:]], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split()[0] in ("success", "failure")


@pytest.mark.parametrize(
    ("deterministic", "candidates"), [(True, 1), (False, 1), (False, 3)], ids=["mean", "draw", "best of three draws"]
)
def test_the_steered_graph_acts_as_the_agent_does(
    policy: tuple[Path, DiffusionPolicy], tmp_path: Path, deterministic: bool, candidates: int
) -> None:
    path, torch_policy = policy
    config = DSRLConfig(initial_steps=8, train_steps=0, ddim_steps=2)
    config.learner.candidates = candidates
    with EnvPool(simulation_of(torch_policy.spec, None, 8)[1], 1) as pool:
        trainer = Trainer(torch_policy, pool, config, tmp_path)
    torch.nn.init.normal_(trainer.learner.policy.played_actor.mu.weight, std=0.1)  # as if it had learnt something
    write_archive(tmp_path / "sac.zip", trainer.learner, trainer.steering(deterministic))
    export(path, tmp_path / "steered.onnx", sac=tmp_path / "sac.zip")
    agent = load_steered_agent(tmp_path / "sac.zip", torch_policy, deterministic=None)
    obs = 2 * np.random.default_rng(0).random((N, 19), dtype=np.float32) - 1
    episodes = [Episode(i, i, np.random.default_rng(i)) for i in range(N)]
    shape = (candidates, 4, 7)
    drawn = {"noise": np.stack([np.random.default_rng(i).standard_normal(shape, dtype=np.float32) for i in range(N)])}
    actions, _ = run(tmp_path / "steered.onnx", obs=obs, **({} if deterministic else drawn))
    np.testing.assert_allclose(actions, agent.act(obs, episodes), atol=1e-5)


def test_flags_of_a_graph_are_refused_for_a_policy_file(policy: tuple[Path, DiffusionPolicy], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected an --output that ends in \.onnx"):
        export(policy[0], tmp_path / "policy.safetensors", ddim_steps=5)
