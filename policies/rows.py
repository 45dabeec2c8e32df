"""Batches in which what comes out of a row does not depend on how many others there are."""

import torch

# Matrix libraries compute batches of one to three rows with kernels of their own, which round the last digits
# differently. In multiples of four a row came out bit for bit the same in batches of 4 to 40 rows (MKL, one thread).
MULTIPLE = 4


def pad_rows(batch: torch.Tensor) -> torch.Tensor:
    """``batch`` (B, ...) with rows of zeros up to the next multiple of four.

    A rollout decides for the environments that happen to have answered. Without this the difference in rounding, though
    tiny, decides episodes at the margin, and an evaluation repeated gives another number.
    """
    missing = -len(batch) % MULTIPLE
    return torch.cat([batch, batch.new_zeros(missing, *batch.shape[1:])]) if missing else batch
