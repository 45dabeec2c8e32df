"""Batches in which what comes out of a row does not depend on how many others there are."""

import torch

# Matrix libraries compute batches of few rows with kernels of their own, which round the last digits differently. With
# MKL on one thread a row came out bit for bit the same in batches of 4, 8, ..., 40 rows where the CPU has AVX2, and in
# any of 16 to 128 where it has AVX-512.
MULTIPLE = 4
LEAST = 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else MULTIPLE


def pad_rows(batch: torch.Tensor) -> torch.Tensor:
    """``batch`` (B, ...) with rows of zeros up to the next number of rows that is computed like any larger one.

    A rollout decides for the environments that happen to have answered. Without this the difference in rounding, though
    tiny, decides episodes at the margin, and an evaluation repeated gives another number.
    """
    missing = max(LEAST, len(batch) + -len(batch) % MULTIPLE) - len(batch)
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
