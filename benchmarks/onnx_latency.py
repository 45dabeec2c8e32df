"""How long a decision takes on one core: the ONNX graph against PyTorch, by number of denoising steps.

    python -m benchmarks.onnx_latency --checkpoint checkpoints/bc/square/policy.safetensors

One observation at a time, as on a robot; the two take turns in one run, because the machine's speed drifts.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from commands.onnx_graph import write_onnx
from policies import load_policy


def measure(calls: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds (median, 99 %) of each call, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 20):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= 20:  # the first ones warm up
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: [round(float(np.percentile(t, q)), 3) for q in (50, 99)] for name, t in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--output", type=Path, default=Path("docs/results/onnx_latency.json"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    policy = load_policy(args.checkpoint)
    obs, noise = torch.zeros(1, policy.spec.obs_dim), torch.zeros(1, *policy.chunk_shape)
    feed = {"obs": obs.numpy(), "noise": noise.numpy()}
    results = {}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        for steps in (10, 5, 2):
            write_onnx(Path(folder, "policy.onnx"), policy, steps)
            session = onnxruntime.InferenceSession(Path(folder, "policy.onnx"), options)
            calls = {
                "onnxruntime": partial(session.run, None, feed),
                "torch": partial(policy.decode, obs, noise, steps),
            }
            results[steps] = measure(calls, args.repeats)
            print(steps, "steps:", results[steps], "ms (median, 99 %)")
    network = policy.spec.network
    document = {"network": [network.class_path, network.init_args], "threads": 1, "milliseconds_median_p99": results}
    args.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
