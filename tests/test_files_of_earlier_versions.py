"""Files written by an earlier version still load.

`tests/fixtures` holds what version 0.1 of the project (commit 4434ded) wrote: a data set of three short demonstrations,
a policy trained on it for two epochs of `fit` with one rollout each, the checkpoint after the first of them, and the
actor of a short `dsrl` run on that policy.
"""

import shutil
from pathlib import Path

import numpy as np
import torch

from dsrl.agent import load_steered_agent
from envs.tasks import DEFAULT_OBS_KEYS
from policies import load_policy
from rollouts.loop import Episode
from tests.training_toy import ForkServer, fit_line

FIXTURES = Path(__file__).parent / "fixtures"


def test_a_policy_file_and_a_checkpoint_load() -> None:
    policy, checkpoint = load_policy(FIXTURES / "policy.safetensors"), load_policy(FIXTURES / "bc_epoch0.ckpt")
    assert (policy.spec.weights, policy.spec.train_step) == ("ema", 4)
    assert (checkpoint.spec.weights, checkpoint.spec.train_step) == ("ema", 2)
    assert policy.spec.task == checkpoint.spec.task == "lift"
    actions = [each.decode(torch.zeros(2, 19), torch.zeros(2, 4, 7)) for each in (policy, checkpoint)]
    assert all(chunk.isfinite().all() for chunk in actions)
    assert not torch.equal(*actions)


def test_a_run_goes_on_from_its_checkpoint_to_the_same_policy(cli_server: ForkServer, tmp_path: Path) -> None:
    shutil.copy(FIXTURES / "bc_epoch0.ckpt", tmp_path / "last.ckpt")
    line = fit_line(
        tmp_path,
        FIXTURES / "demonstrations.hdf5",
        data__obs_keys=f"[{','.join(DEFAULT_OBS_KEYS)}]",
        data__batch_size=4,
        model__network__init_args__hidden_dims="[4]",
        model__network__init_args__time_dim=4,
        trainer__max_epochs=2,
        ckpt_path="last",
    )
    status, errors = cli_server.run(line)
    assert status == 0, errors
    went_on, whole = load_policy(tmp_path / "last.ckpt"), load_policy(FIXTURES / "policy.safetensors")
    assert went_on.spec.train_step == whole.spec.train_step
    for name, weight in whole.state_dict().items():
        torch.testing.assert_close(went_on.state_dict()[name], weight)


def test_a_steered_actor_loads_beside_its_policy() -> None:
    policy = load_policy(FIXTURES / "policy.safetensors")
    agent = load_steered_agent(FIXTURES / "sac_best.zip", policy)
    chunks = agent.act(np.zeros((1, 19), dtype=np.float32), [Episode(0, 0, np.random.default_rng(0))])
    assert chunks.shape == (1, 4, 7)
    assert np.isfinite(chunks).all()
