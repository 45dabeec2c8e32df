"""`export`: a Lightning checkpoint as one policy file, or a policy as an ONNX graph."""

from pathlib import Path

from commands.first_words import played, say_next
from commands.simulation import load_checkpoint, steps_of
from common.errors import UserError


def export(
    checkpoint: Path,
    output: Path,
    sac: Path | None = None,
    ddim_steps: int | None = None,
    network_module: str | None = None,
) -> None:
    """Write a checkpoint's EMA weights as a policy file, or the whole policy as an ONNX graph that needs no torch.

    Args:
        checkpoint: a .ckpt of `fit`, or an exported .safetensors.
        output: the file to write: .safetensors, or .onnx (observation and noise in, action chunk out).
        sac: archive of a trained SAC: the graph is the steered policy's. Only for .onnx.
        ddim_steps: denoising steps of the graph; the policy's own by default, with --sac those it was trained with.
            Only for .onnx.
        network_module: module of the checkpoint's network, where that is not one of this project's.
    """
    if output.suffix not in (".safetensors", ".onnx"):
        raise UserError(f"--output is {output}: expected a name that ends in .safetensors or .onnx")
    if output.suffix == ".safetensors" and (sac is not None or ddim_steps is not None):
        raise UserError(
            f"--sac and --ddim_steps belong to a graph: expected an --output that ends in .onnx, not {output}"
        )
    policy = load_checkpoint(checkpoint, ddim_steps, network_module)
    spec = policy.spec
    if output.suffix == ".safetensors":
        policy.save(output)
        print(f"wrote {output}: {spec.weights} weights after {spec.train_step} steps, obs {spec.obs_dims}")
        say_next("judge it", "evaluate", *played(output, None, spec))
        return
    from commands.onnx_graph import write_onnx

    steps = steps_of(policy, sac, ddim_steps)
    agent = None
    if sac is not None:
        from dsrl.agent import load_steered_agent

        agent = load_steered_agent(sac, policy, ddim_steps=steps, deterministic=None)
    inputs = write_onnx(output, policy, steps, agent)
    steered = "" if agent is None else f", steered by its actor's {agent.kind}"
    print(f"wrote {output}: {' and '.join(inputs)} -> actions, {steps} denoising steps{steered}")
