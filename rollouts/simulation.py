"""The simulator that belongs to a policy."""

from common.errors import UserError
from envs.pool import EnvPool, EnvSpec
from envs.tasks import TASKS, find_task, resolve_env_args, task_of
from policies import PolicySpec

DEFAULT_HORIZON = 400


def simulation_of(
    spec: PolicySpec, task: str | None, horizon: int | None, render_size: tuple[int, int] | None = None
) -> tuple[str | None, EnvSpec]:
    """The task's short name, if it has one, and the environments for a policy: the one definition of both.

    Args:
        spec: the policy's; carries env_args, unless its data had none.
        task: named by the user; None: the policy's own.
        horizon: env steps per episode; None: the task's.
        render_size: (height, width) of frames; None: no rendering.

    Raises:
        UserError: the data belong to another task than the one named, or no task is known.
    """
    named = task or spec.task
    env_args = resolve_env_args(spec.env_args, named)
    name = task_of(env_args)
    if named is not None and find_task(named).env_name != env_args["env_name"]:
        raise UserError(
            f"the task is given as {named!r} ({find_task(named).env_name}), but the policy's data are "
            f"of {env_args['env_name']}: name the task that fits, or another policy or data set"
        )
    if horizon is None:
        horizon = TASKS[name].horizon if name is not None else DEFAULT_HORIZON
    elif horizon < 1:
        raise UserError(f"horizon is {horizon}: expected at least 1")
    return name, EnvSpec(env_args, tuple(spec.obs_keys), spec.pred_horizon, horizon, render_size=render_size)


def check_fits(spec: PolicySpec, pool: EnvPool) -> None:
    """Compare the policy's dimensions with the simulator's.

    Raises:
        UserError: they differ, as with a checkpoint of another task.
    """
    if spec.obs_dims != pool.obs_dims or spec.action_dim != pool.action_dim:
        raise UserError(
            f"the policy does not fit {pool.spec.env_args['env_name']}: it expects observations {spec.obs_dims} "
            f"and {spec.action_dim} actions, the simulator has {pool.obs_dims} and {pool.action_dim}"
        )
