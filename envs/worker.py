"""The process that simulates some of a pool's environments. Imports neither torch nor anything that does.

Started by ``envs.pool``, with the file descriptor of one end of a socket as the only word of its line. It answers
requests in the order of their arrival and ends when the other end of the socket closes, however the parent died.
"""

import contextlib
import signal
import sys
import traceback
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from common.errors import UserError
from envs.messages import Capture, EnvSpec, Failure, Reply, Request, Trajectory


class Simulation:
    """One environment of the pool, and what its requests do."""

    def __init__(self, spec: EnvSpec) -> None:
        from envs.action_chunk import ActionChunkEnv
        from envs.robosuite_env import RobosuiteEnv

        self._env = RobosuiteEnv(
            spec.env_args,
            spec.obs_keys,
            horizon=spec.horizon,
            stepping=spec.stepping,
            render_mode=None if spec.render_size is None else "rgb_array",
            render_size=spec.render_size or (256, 256),
            camera=spec.camera,
        )
        self._chunks = ActionChunkEnv(self._env, spec.pred_horizon)

    def describe(self) -> Reply:
        return Reply(value=(self._env.obs_dims, self._env.action_shape[0]))

    def reset(self, seed: int, capture: Capture) -> Reply:
        return self._first(self._env.reset(seed=seed)[0], capture)

    def reset_to(self, state: np.ndarray, model_file: str | None, capture: Capture) -> Reply:
        return self._first(self._env.reset_to(state, model_file), capture)

    def _first(self, obs: np.ndarray, capture: Capture) -> Reply:
        frames = [self._env.render()] if capture.frames_every else None
        return Reply(obs=obs, frames=frames, model_file=self._env.model_file() if capture.trajectory else None)

    def step(self, actions: np.ndarray, capture: Capture) -> Reply:
        """Execute one chunk (pred_horizon, action_dim)."""
        states: list[np.ndarray] = []
        observations: list[np.ndarray] = []
        frames: list[np.ndarray] = []

        def before() -> None:
            if capture.trajectory:
                states.append(self._env.state())
                observations.append(self._env.observe())

        def after() -> None:
            if capture.frames_every and self._env.length % capture.frames_every == 0:
                frames.append(self._env.render())

        obs, reward, terminated, truncated, info = self._chunks.step(actions, before=before, after=after)
        trajectory = None
        if capture.trajectory:
            executed = np.array(actions[: info["env_steps"]], dtype=np.float64)
            rewards = np.zeros(len(executed))
            rewards[-1] = reward
            trajectory = Trajectory(np.array(states), np.array(observations), executed, rewards, self._env.observe())
        return Reply(
            obs=obs,
            reward=reward,
            terminated=terminated,
            truncated=truncated,
            env_steps=info["env_steps"],
            is_success=info["is_success"],
            frames=frames if capture.frames_every else None,
            trajectory=trajectory,
        )

    def call(self, name: str, args: tuple[Any, ...]) -> Reply:
        return Reply(value=getattr(self._env, name)(*args))


def serve(connection: Connection) -> None:
    """Answer requests until the parent closes its end.

    The first message is the spec and the number of environments; each later one is a ``Request`` for one of them. An
    exception is sent back with its traceback; the environment stays as it is.
    """
    spec, n_envs = connection.recv()
    simulations: list[Simulation] = []
    try:
        _answer(connection, spec, n_envs, simulations)
    finally:
        if spec.render_size is not None:  # a GL context is freed by the thread that made it
            for simulation in simulations:
                simulation.call("close", ())


def _answer(connection: Connection, spec: EnvSpec, n_envs: int, simulations: list[Simulation]) -> None:
    while True:
        slot = -1
        try:
            if len(simulations) < n_envs:
                slot = len(simulations)
                simulations.append(Simulation(spec))
                reply: Reply | Failure = simulations[slot].describe()
            else:
                request: Request = connection.recv()
                slot = request.slot
                reply = getattr(simulations[slot], request.method)(*request.args)
        except EOFError:
            return
        except Exception as error:
            message = str(error) if isinstance(error, UserError) else None
            reply = Failure(traceback.format_exc(), message)
        connection.send((slot, reply))
        if isinstance(reply, Failure) and len(simulations) < n_envs:
            return


def main() -> None:
    # Ctrl-C goes to the parent, which closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The parent may die while this process simulates.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        serve(Connection(int(sys.argv[1])))
