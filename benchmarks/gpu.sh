#!/usr/bin/env bash
# The whole proof on one NVIDIA GPU, in nine minutes: tests, training speed, the human Square policy, steering.
#
#   bash benchmarks/gpu.sh PACK RESULTS [options of benchmarks/gpu.py: --toy, --minutes N, --steps NAME ...]
#
# PACK is what gpu_pack.sh made. Needs python3 (or $PYTHON) with PyTorch, Lightning, numba, SciPy, h5py, safetensors,
# rich, tensorboard and matplotlib, and no network. Exits with 1 where a step failed, was skipped, cut short or did not use the GPU.
set -euo pipefail
shopt -s nullglob
cd "$(dirname "$0")/.."
pack=$(realpath "$1"); results=$(realpath -m "$2"); shift 2
python=${PYTHON:-python3}

site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
# What the machine has already stays as it is there.
mapfile -t missing < <("$python" - "$pack"/wheels/*.whl <<'PYTHON'
import importlib.metadata, pathlib, sys
have = {d.metadata["Name"].lower().replace("_", "-") for d in importlib.metadata.distributions()}
for wheel in map(pathlib.Path, sys.argv[1:]):
    if wheel.name.split("-")[0].lower().replace("_", "-") not in have:
        print(wheel)
PYTHON
)
if [ "${#missing[@]}" -gt 0 ]; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --disable-pip-version-check --target "$site" "${missing[@]}"
fi
export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
"$python" -m benchmarks.gpu --pack "$pack" --results "$results" "$@"
