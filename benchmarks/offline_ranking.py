"""Does a measure on held-out demonstrations rank checkpoints as rollouts do?

    python -m benchmarks.offline_ranking --dataset square_ph.hdf5 --output offline_ranking.csv checkpoints/*/epoch*.ckpt

For every checkpoint of a ``fit`` whose names hold their success rate (``best.keep`` as large as the number of
rollouts keeps all): on the demonstrations of ``--filter_key``, in normalised units, the loss, and the error of chunks
decoded from s N(0, I) (``error_s``), of the mean of some draws at the policy's own scale, and of the worst hundredth.
At the end Spearman's rank correlation of each with success, where -1 would be a perfect measure of error.
"""

import argparse
import csv
import re
from pathlib import Path

import torch
from torch import Tensor
from torchmetrics.functional import spearman_corrcoef

from common.files import atomic_path
from datamodules.robomimic_datamodule import RobomimicDataModule
from policies import load_policy
from policies.diffusion_policy import DiffusionPolicy

SUCCESS = re.compile(r"epoch(\d+)-success(\d\.\d+)\.ckpt$")
SCALES = (1.0, 0.5, 0.0)
DRAWS = 8  # of the noise, for each window
MEASURES = ("loss", *(f"error_{scale:g}" for scale in SCALES), "error_of_mean", "worst_hundredth")


@torch.inference_mode()
def measures(policy: DiffusionPolicy, obs: Tensor, actions: Tensor) -> dict[str, float]:
    """Mean squared errors over windows and components, the same noise for every policy."""
    generator = torch.Generator().manual_seed(0)
    normalize = policy.action_normalizer.normalize
    target = normalize(actions)
    noise = torch.randn(DRAWS, len(obs), *policy.chunk_shape, generator=generator)
    found = {"loss": policy.loss(obs.repeat(DRAWS, 1), actions.repeat(DRAWS, 1, 1), generator).item()}
    own = policy.spec.diffusion.noise_scale
    decoded = {s: torch.stack([normalize(policy.decode(obs, s * each)) for each in noise]) for s in {*SCALES, own}}
    for scale in SCALES:
        found[f"error_{scale:g}"] = (decoded[scale] - target).square().mean().item()
    errors = (decoded[own].mean(0) - target).square().mean((1, 2))
    return {**found, "error_of_mean": errors.mean().item(), "worst_hundredth": errors.quantile(0.99).item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--filter_key", default="valid")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    spec = load_policy(options.checkpoints[0]).spec  # all are of one fit
    data = RobomimicDataModule(
        options.dataset,
        obs_keys=spec.obs_keys,
        pred_horizon=spec.pred_horizon,
        train_filter_key=options.filter_key,
        val_filter_key=None,
    )
    data.setup()
    rows: list[dict[str, float]] = []
    for path in sorted(options.checkpoints):
        name = SUCCESS.search(path.name)
        if name is None:
            parser.error(f"{path.name} does not hold a success rate: expected epochNNNN-success0.NNN.ckpt")
        found = measures(load_policy(path), data.train_chunks.obs, data.train_chunks.actions)
        rows.append({"epoch": int(name[1]), "success": float(name[2]), **found})
        print(" ".join(f"{key} {value:.4f}" for key, value in rows[-1].items()), flush=True)
    success = torch.tensor([row["success"] for row in rows])
    for measure in MEASURES:
        ranked = spearman_corrcoef(torch.tensor([row[measure] for row in rows]), success)
        print(f"{measure}: Spearman's correlation with success {ranked:.2f} over {len(rows)} checkpoints")
    with atomic_path(options.output) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
