#!/usr/bin/env bash
# Packs what benchmarks/gpu.sh needs on a machine without a network: wheels, data, a Can policy. Options: --help.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-.venv/bin/python}" -m benchmarks.gpu_pack "$@"
