"""`export`: a Lightning checkpoint as one policy file."""

from pathlib import Path

from commands.first_words import say_next
from common.errors import UserError
from policies import load_policy


def export(checkpoint: Path, output: Path) -> None:
    """Write the EMA weights of a Lightning checkpoint as a policy file: safetensors, no pickle.

    Args:
        checkpoint: a .ckpt of `fit`.
        output: the .safetensors file to write.
    """
    if output.suffix != ".safetensors":
        raise UserError(f"--output is {output}: expected a name that ends in .safetensors")
    policy = load_policy(checkpoint)
    policy.save(output)
    spec = policy.spec
    print(f"wrote {output}: {spec.weights} weights after {spec.train_step} steps, obs {spec.obs_dims}")
    say_next("judge it", "evaluate", "--checkpoint", output)
