"""`export`: a Lightning checkpoint as one policy file."""

from pathlib import Path

from commands.first_words import say_next
from commands.simulation import load_checkpoint
from common.errors import UserError


def export(checkpoint: Path, output: Path, network_module: str | None = None) -> None:
    """Write the EMA weights of a Lightning checkpoint as a policy file: safetensors, no pickle.

    Args:
        checkpoint: a .ckpt of `fit`.
        output: the .safetensors file to write.
        network_module: module of the checkpoint's network, where that is not one of this project's.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"--output is {output}: expected a name that ends in .safetensors")
    policy = load_checkpoint(checkpoint, network_module=network_module)
    policy.save(output)
    spec = policy.spec
    print(f"wrote {output}: {spec.weights} weights after {spec.train_step} steps, obs {spec.obs_dims}")
    say_next("judge it", "evaluate", "--checkpoint", output)
