"""A robosuite task as a gymnasium environment with Robomimic's flat low-dimensional observation.

Importing this module registers the tasks with gymnasium: ``Robomimic/Lift-v0``, ..., ``Robomimic/ToolHang-v0``.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal, SupportsFloat

import gymnasium
import numpy as np

from common.controllers import are_absolute
from common.errors import UserError
from envs import resets
from envs.messages import Retraced
from envs.readout import Sensors, Success
from envs.rendering import CameraRenderer
from envs.robosuite_common import Stepping, hide_sites, make_env, model_and_data
from envs.simulator import simulator
from envs.stepping import StockStepping
from envs.tasks import DEFAULT_OBS_KEYS, TASKS, default_env_args, find_task

SteppingName = Literal["fused", "stock"]
REPLAY_TOLERANCE = 0.01  # m, rad


class RobosuiteEnv(gymnasium.Env[np.ndarray, np.ndarray]):
    """One control step per ``step``; an episode ends at success or after ``horizon`` control steps.

    Observation: (obs_dim,) float32, the ``obs_keys`` concatenated in raw units, of the forwarded state. Action:
    (action_dim,), motions in [-1, 1], or target poses without a bound, as the controller takes them. Reward: 1.0 at
    success, else 0.0.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012 - gymnasium's own attribute

    def __init__(
        self,
        env_args: dict[str, Any],
        obs_keys: Sequence[str] = DEFAULT_OBS_KEYS,
        horizon: int = 400,
        stepping: SteppingName = "fused",
        render_mode: str | None = None,
        render_size: tuple[int, int] = (256, 256),
        camera: str = "agentview",
    ) -> None:
        """
        Args:
            env_args: a Robomimic header's: ``env_name``, ``env_version``, ``env_kwargs``.
            obs_keys: Robomimic's names, e.g. ``robot0_eef_pos``, ``object``.
            horizon: env steps after which an episode is truncated.
            stepping: "fused" (compiled; falls back to "stock", with a warning, for what it does not know) or "stock".
            render_mode: None or "rgb_array".
            render_size: (height, width) of a frame.
            camera: the model's name of the camera.

        Raises:
            UserError: an unknown environment or observation key; rendering asked for without a GL library.
        """
        self.env_args = env_args
        self.obs_keys = tuple(obs_keys)
        self.horizon = horizon
        self.render_mode = render_mode
        self.render_size = render_size
        self.camera = camera
        self._stepping_name = stepping
        self._env = make_env(env_args)
        self._model_file: str | None = None  # that of reset_to; None: robosuite's own model
        self._rebuilt = False  # whether that model took the place of robosuite's own
        self._renderer: CameraRenderer | None = None
        self._bind()
        self.obs_dims = self._sensors.dims()
        self.action_shape: tuple[int] = (self._env.action_dim,)
        self._length = 0
        bound = np.inf if are_absolute(env_args) else 1.0
        self.action_space: gymnasium.spaces.Box = gymnasium.spaces.Box(-bound, bound, self.action_shape, np.float32)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (sum(self.obs_dims.values()),), np.float32)

    def _bind(self) -> None:
        """Look up everything that lives in the simulation's memory: after every build of it."""
        hide_sites(self._env)
        self._sensors = Sensors(self._env, self.obs_keys)
        self._success = Success(self._env)
        self._stepping: Stepping
        obstacle = simulator.why_not_fused(self._env) if self._stepping_name == "fused" else None
        if obstacle is not None:
            warnings.warn(
                f"{self.env_args['env_name']} is stepped by robosuite itself (slow): {obstacle}", stacklevel=3
            )
            self._stepping_name = "stock"
        fused = self._stepping_name == "fused"
        self._stepping = simulator.fused_stepping(self._env) if fused else StockStepping(self._env)
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode at robosuite's own initial state for ``seed`` (one drawn from ``np_random`` when None)."""
        super().reset(seed=seed)
        self._restore_model()
        resets.seeded_reset(self._env, int(self.np_random.integers(2**32)) if seed is None else seed)
        if not resets.can_reset_without_rebuild(self._env):
            self._bind()
        return self._begin(), {"is_success": False}

    def reset_to(self, state: np.ndarray, model_file: str | None = None) -> np.ndarray:
        """Begin an episode at ``state`` (S,), in the model of ``model_file`` (None: the present one).

        The model is rebuilt only where it differs from the present one by more than the size of Lift's cube.

        Returns:
            The observation (obs_dim,) float32.

        Raises:
            UserError: a state of another length, or a model file that cannot be read.
        """
        if model_file is not None and model_file != self._model_file:
            self._restore_model()
            if resets.load_model_xml(self._env, model_file):
                self._rebuilt = True
                self._bind()
            self._model_file = model_file
        model, _ = model_and_data(self._env)
        if np.shape(state) != (1 + model.nq + model.nv,):
            raise UserError(
                f"a simulator state of shape {np.shape(state)} does not fit {self.env_args['env_name']}: expected "
                f"({1 + model.nq + model.nv},), that is time, qpos and qvel."
            )
        resets.reset_to_state(self._env, np.asarray(state, dtype=np.float64))
        return self._begin()

    def observe_states(self, states: np.ndarray, model_file: str | None = None) -> np.ndarray:
        """Observations (T, obs_dim) float64 of an episode's ``states`` (T, S), one control step apart.

        As Robomimic's ``dataset_states_to_obs`` makes them. Not the same as ``reset_to`` each state: where robosuite
        observes something of the state before (see ``envs.readout``), these do too.

        Raises:
            UserError: as ``reset_to``.
        """
        return np.array([self.observe() for _ in self._revisit(states, model_file)])

    def _revisit(self, states: np.ndarray, model_file: str | None) -> Iterator[None]:
        """Bring the simulation to each of an episode's states in turn."""
        self.reset_to(states[0], model_file)
        yield
        for state in states[1:]:
            self._sensors.remember()
            self._env.sim.set_state_from_flattened(state)
            self._env.sim.forward()
            yield

    def _restore_model(self) -> None:
        """Give up the model of an earlier ``reset_to``."""
        self._model_file = None
        if self._rebuilt:
            resets.rebuild(self._env)
            self._rebuilt = False
            self._bind()

    def _begin(self) -> np.ndarray:
        self._length = 0
        self._stepping.begin()
        self._sensors.remember()
        return self.observe().astype(np.float32)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, SupportsFloat, bool, bool, dict[str, Any]]:
        success = self.advance(action)
        truncated = not success and self._length >= self.horizon
        return self.observe().astype(np.float32), float(success), success, truncated, {"is_success": success}

    def advance(self, action: np.ndarray) -> bool:
        """Simulate one control step without computing the observation; whether the task is solved after it.

        Args:
            action: (action_dim,); motions outside [-1, 1] are clipped by the controller.

        Raises:
            ValueError: an action of another shape, or not finite (MuJoCo would quietly reset the simulation).
        """
        if np.shape(action) != self.action_shape or not np.isfinite(action).all():
            raise ValueError(f"cannot execute the action {action}: expected {self.action_shape} finite numbers")
        self._sensors.remember()
        self._stepping.step(np.asarray(action, dtype=np.float64))
        self._length += 1
        return self._success.check()

    def retrace(self, states: np.ndarray, actions: np.ndarray, model_file: str | None) -> Retraced:
        """Look a recording's states up in the simulator, then play its actions again from the first one.

        Args:
            states: (T, S), before each action.
            actions: (T, action_dim).
            model_file: of the recording; None: the present model.

        Raises:
            UserError: states or model file do not fit this environment.
        """
        observations, successes = [], []
        for _ in self._revisit(states, model_file):
            observations.append(self.observe())
            successes.append(self._success.check())
        self.reset_to(states[0], model_file)
        nq = model_and_data(self._env)[0].nq
        distances = np.zeros(len(states))
        for t, action in enumerate(actions[:-1]):
            self.advance(action)
            distances[t] = np.abs(self.state() - states[t + 1])[1 : 1 + nq].max()
        far = np.flatnonzero(distances > REPLAY_TOLERANCE)
        if len(far):  # the last action begins where the recording says
            self.reset_to(states[-1], model_file)
        successes.append(self.advance(actions[-1]))
        observations.append(self.observe())
        departed_at = int(far[0]) if len(far) else None
        return Retraced(np.array(observations), np.array(successes[1:]), float(distances.max()), departed_at)

    @property
    def length(self) -> int:
        """Env steps since the episode began."""
        return self._length

    def observe(self) -> np.ndarray:
        """The observation (obs_dim,) of the present state, in the double precision of Robomimic's files."""
        return self._sensors.read()

    def state(self) -> np.ndarray:
        """The simulator's state (S,) float64: time, qpos, qvel, as Robomimic's ``states``."""
        return self._env.sim.get_state().flatten()

    def model_file(self) -> str:
        """The model's XML, with this episode's cube, as Robomimic's ``model_file``."""
        return resets.model_xml(self._env) if self._model_file is None else self._model_file

    def render(self) -> np.ndarray:  # type: ignore[override]
        """The camera's view of the present state: (height, width, 3) uint8."""
        if self.render_mode is None:
            raise UserError("this environment was made without rendering: pass render_mode='rgb_array'.")
        if self._renderer is None:
            self._renderer = CameraRenderer(*model_and_data(self._env), self.camera, self.render_size)
        return self._renderer.render()

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._env.close()


def make_task(task: str, **kwargs: Any) -> RobosuiteEnv:
    """The environment of one of ``TASKS`` with Robomimic's default settings: gymnasium's entry point."""
    return RobosuiteEnv(default_env_args(task), **{"obs_keys": find_task(task).obs_keys, **kwargs})


for _name in TASKS:
    _title = _name.title().replace("_", "")
    gymnasium.register(f"Robomimic/{_title}-v0", entry_point="envs.robosuite_env:make_task", kwargs={"task": _name})
