"""The ways in which networks may be compiled, by the names of the flags."""

from typing import Literal

Compilation = Literal["off", "kernels", "cuda_graphs"]
# torch.compile's modes; reduce-overhead replays what it compiled as CUDA graphs, and does nothing more on a CPU.
COMPILE_MODES: dict[str, str] = {"kernels": "default", "cuda_graphs": "reduce-overhead"}
