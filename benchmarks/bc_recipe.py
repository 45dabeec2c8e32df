"""Which recipe gets most from a fixed budget of gradient steps: trains variants and judges each on fresh episodes.

    python benchmarks/bc_recipe.py --task square --data data/square_scripted.hdf5 --steps 15000 --variants base wide

Appends one row per variant to docs/results/bc_recipe.csv.
"""

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from datamodules.robomimic_datamodule import RobomimicDataModule

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs/results/bc_recipe.csv"
COLUMNS = ("task", "variant", "flags", "steps", "train_seconds", "seed", "episodes", "success", "low", "high")

BASE = {
    "model.network.hidden_dims": "[512,512,512]",
    "model.lr": "1e-3",
    "model.warmup_steps": "500",
    "ema.decay": "0.999",
    "trainer.precision": "bf16-mixed",
}
# Each differs from BASE in one thing.
VARIANTS: dict[str, dict[str, str]] = {
    "base": {},
    "fp32": {"trainer.precision": "32-true"},
    "seed_rates": {"model.lr": "1e-4", "ema.decay": "0.995"},
    "lr_3e-4": {"model.lr": "3e-4"},
    "lr_2e-3": {"model.lr": "2e-3"},
    "constant_lr": {"model.lr_schedule": "constant"},
    "ema_0.995": {"ema.decay": "0.995"},
    "ema_0.9998": {"ema.decay": "0.9998"},
    "wide": {"model.network.hidden_dims": "[1024,1024,1024]"},
    "narrow": {"model.network.hidden_dims": "[256,256,256]"},
    "deep": {"model.network.hidden_dims": "[512,512,512,512,512]"},
    "batch_128": {"data.batch_size": "128"},
    "batch_1024": {"data.batch_size": "1024"},
    "sample": {"model.diffusion.prediction": "sample"},
    "velocity": {"model.diffusion.prediction": "velocity"},
    "padded": {"data.pad_end": "true"},
    "no_decay": {"model.weight_decay": "0"},
    "decay_1e-2": {"model.weight_decay": "1e-2"},
}


def run_variant(task: str, data: str, variant: str, steps: int, seed: int, episodes: int) -> dict[str, object]:
    """Train one variant for ``steps`` and evaluate its final EMA weights."""
    flags = BASE | VARIANTS[variant]
    module = RobomimicDataModule(data, batch_size=int(flags.get("data.batch_size", "256")))
    module.setup()
    epochs = max(1, round(steps / len(module.train_dataloader())))
    folder = ROOT / f"runs/recipe/{task}/{variant}_{steps}_{seed}"
    fit = [f"--{name}={value}" for name, value in flags.items()]
    fit += [f"--data.path={data}", f"--seed_everything={seed}", f"--trainer.max_epochs={epochs}"]
    fit += [f"--trainer.check_val_every_n_epoch={epochs}", "--rollout.every_n_epochs=0", f"--best.dirpath={folder}"]
    fit += [f"--last.every_n_epochs={epochs}", f"--trainer.logger.init_args.save_dir={folder}"]
    start = time.monotonic()
    cli = [sys.executable, str(ROOT / "cli.py")]
    subprocess.run([*cli, "fit", f"--config={ROOT}/configs/bc_{task}.yaml", *fit], check=True, cwd=ROOT)
    seconds = time.monotonic() - start
    output = folder / "results.json"
    judge = [f"--checkpoint={folder}/policy.safetensors", f"--n_episodes={episodes}", "--seed=7", f"--output={output}"]
    subprocess.run([*cli, "evaluate", *judge], check=True, cwd=ROOT)
    results = json.loads(output.read_text())
    return {
        "task": task,
        "variant": variant,
        "flags": " ".join(f"{k}={v}" for k, v in flags.items()),
        "steps": epochs * len(module.train_dataloader()),
        "train_seconds": round(seconds),
        "seed": seed,
        "episodes": episodes,
        "success": results["success_rate"],
        "low": round(results["ci95"][0], 3),
        "high": round(results["ci95"][1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=["lift", "can", "square"])
    parser.add_argument("--data", required=True)
    parser.add_argument("--steps", type=int, default=15_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    for variant in options.variants:
        row = run_variant(options.task, options.data, variant, options.steps, options.seed, options.episodes)
        fresh = not TABLE.exists()
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        with TABLE.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            if fresh:
                writer.writeheader()
            writer.writerow(row)


if __name__ == "__main__":
    main()
