"""The agent that a run has trained, for other programs: `Agent.load("runs/walker").act(observation)`.

Shapes: B batch, T time, F feature size, M memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dreamer.algorithms.dream import Dream, act_in_imagination, disagreements, predict
from dreamer.algorithms.policy import Policy
from dreamer.config.load import Config
from dreamer.envs.spaces import Spaces
from dreamer.envs.translation import Translation
from dreamer.errors import InputError
from dreamer.exported import find_exported, read_exported
from dreamer.modules.rssm import State
from dreamer.replay.step import Step
from dreamer.training.agent_parts import Weights, build_networks, read_run
from dreamer.training.collect import chosen
from dreamer.training.device import one_thread, precision_kept, select_device, set_precision
from dreamer.training.run_folder import find_run
from dreamer.training.seeding import Noise
from dreamer.training.torch_settings import usual_types


class Agent:
    """A world model and an actor that follow what they observe, in the environment's own units and keys.

    Each method takes one observation or a batch of B, each with a latent state of its own. An environment that the run
    made with `environment.frame_skip` takes each action `frame_skip` times before the agent observes again.
    """

    def __init__(
        self,
        config: Config,
        spaces: Spaces,
        weights: Weights,
        iteration: int = 0,
        device: str = "cpu",
        seed: int | None = None,
    ):
        """config, spaces, weights, iteration: as in `Parts`.

        seed: of the noise in latent states and sampled actions; None: the noise of an evaluation of the run at this
        iteration. Raises ConfigError if networks do not fit, NotFiniteError.
        """
        self.config, self.spaces, self.iteration, self.device = config, spaces, iteration, select_device(device)
        self.translation = Translation(spaces, config.environment)
        seeds = (config.operation.seed, iteration) if seed is None else (seed,)
        self.noise, self.noise_of_dreams = Noise(self.device, *seeds), Noise(self.device, *seeds, 1)
        with usual_types(), precision_kept(), Noise(self.device, 0).drawn():
            set_precision(config, self.device)
            self.precision = torch.get_float32_matmul_precision()
            networks = build_networks(config, self.translation, weights, self.device)
        self.model, self.actor = networks["model"], networks["actor"]
        self.critic, self.one_step_model = networks.get("critic"), networks.get("one_step_model")
        self.policy = Policy(self.model, self.actor)
        self.is_first = np.array(True)  # or (B,): whose episode begins with the next observation
        self.last_action: np.ndarray | None = None  # as the actor gives it, if `act` was called last

    @classmethod
    def load(
        cls, source: str | Path = "latest", device: str = "cpu", seed: int | None = None, checkpoint: str = "newest"
    ) -> Agent:
        """Return the agent of a run. No environment is made, unless the run is older than their spaces in checkpoints.

        source: the folder of a run, or "latest", the one in runs/ that started last; or an exported agent: a .zip file,
        hf://user/name, or the name of one that comes with this package. device: cpu, cuda, … or auto. seed: as for
        `Agent`. checkpoint: of a run: newest, best, or an iteration. Raises ConfigError, CheckpointError or
        ExportError, in one line, for what cannot be loaded.
        """
        path = find_exported(source)
        parts = read_exported(path).parts if path else read_run(find_run(source), checkpoint)
        return cls(*parts, device=device, seed=seed)

    @property
    def observation_space(self) -> Any:
        """The environment's own observation space. Where the agent sees what the environment renders, the frames that
        it saw in training; it takes frames of other sizes and resizes them."""
        return self.spaces.observation

    @property
    def action_space(self) -> Any:
        """The environment's own action space."""
        return self.spaces.action

    @property
    def frame_skip(self) -> int:
        """How often the environment is to take each action, before the next observation."""
        return self.config.environment.frame_skip

    def reset(self, done: Any = None) -> None:
        """Let an episode begin with the next observation.

        done: (B,), for which of a batch it begins; None: for all, and the next batch may have another size.
        """
        if done is None or self.is_first.all():
            self.is_first = np.ones_like(self.is_first)
            return
        begins = np.asarray(done)
        if begins.dtype != bool or begins.shape != self.is_first.shape:
            found, expected = f"{begins.dtype} {begins.shape}", f"bool {self.is_first.shape}"
            raise InputError(f"reset takes one flag for each observation of the batch, {expected}, not {found}")
        self.is_first = self.is_first | begins

    def act(self, observation: Any, sample: bool | None = None, *, action: Any = None) -> Any:
        """Return the action for an observation, or those for a batch, as the environment takes them.

        sample: whether to sample the actor's distribution, else its mode; None: as evaluations of the run do. action:
        the one that led to the observation, if it was not the one that `act` returned. Raises InputError.
        """
        taken = self._follow(observation, action, self._noise_of_actions(sample))
        self.last_action = taken
        return self.translation.own_action(taken)

    def observe(self, observation: Any, action: Any = None) -> None:
        """Follow what somebody else does, without acting.

        action: what they did that led to the observation; not needed for the first one of an episode. Raises
        InputError.
        """
        self._follow(observation, action, None)
        self.last_action = None

    @property
    def state(self) -> np.ndarray:
        """The latent state after the last observation, float32 (F + M,) or (B, F + M).

        It can be set, to one that an agent of the same run has had, or to one of a `Dream`. Raises InputError if
        nothing was observed since the beginning of an episode.
        """
        stored = self._present().stored.cpu().numpy().copy()
        return stored if self.is_first.shape else stored[0]

    @state.setter
    def state(self, stored: Any) -> None:
        array, size = np.asarray(stored, np.float32), self.model.rssm.stored_size
        if array.ndim not in (1, 2) or array.shape[-1] != size or not np.isfinite(array).all():
            raise InputError(
                f"the state has the shape {array.shape}; expected finite numbers, ({size},) or (B, {size})"
            )
        self.policy.state = self.model.rssm.restored(torch.tensor(np.atleast_2d(array), device=self.device))
        self.is_first, self.last_action = np.zeros(array.shape[:-1], bool), None

    @torch.inference_mode()
    def imagine(self, actions: Any = None, steps: int = 15, sample: bool | None = None) -> Dream:
        """Return what the model predicts from the present latent state on, which stays as it is.

        actions: of the environment, (T, ·) or, of several dreams, (B, T, ·); None: the actor acts for `steps` steps.
        sample: as for `act`. The latent states are samples, so that two dreams differ. Raises InputError.
        """
        state = self._present()
        with self._computing(self.noise_of_dreams):
            if actions is None:
                self.policy.exploration_noise = self._noise_of_actions(sample)
                states, taken = act_in_imagination(self.model, self.actor, self.policy.act, state, steps)
                is_batch = bool(self.is_first.shape)
            else:
                array = self.translation.taken(actions, axes=(2,) if self.is_first.shape else (1, 2))
                is_batch = array.ndim == 3
                taken = torch.tensor(array if is_batch else array[None], device=self.device)
                state = self._repeated(state, len(taken))
                states = self.model.rssm.imagine(state, taken)
            dream = replace(self._predict(states), actions=self.translation.own_action(taken.cpu().numpy()))
            if self.one_step_model is not None:
                measure = self.config.parameters.plan2explore.disagreement
                apart = disagreements(self.one_step_model, state, states, taken, measure)
                dream = replace(dream, disagreement=apart)
        return dream if is_batch else _first(dream)

    @torch.inference_mode()
    def reconstruct(self) -> Dream:
        """Return what the model decodes from the present latent state, without an axis of time. Raises InputError if
        nothing was observed since the beginning of an episode."""
        with self._computing(self.noise_of_dreams):
            dream = self._predict(self._present())
        return dream if self.is_first.shape else _first(dream)

    def _follow(self, observation: Any, action: Any, noise: float | None) -> np.ndarray:
        """Filter an observation, or a batch, and return the actor's actions, (A,) or (B, A)."""
        seen, size = self.translation.seen(observation)
        shape = () if size is None else (size,)
        if shape != self.is_first.shape:
            if not self.is_first.all():
                found, expected = f"{shape} observations", f"{self.is_first.shape} as before"
                raise InputError(f"{found}; expected {expected}; call reset() where other episodes begin")
            self.is_first, self.policy.state = np.ones(shape, bool), None
        step = Step(seen, self._led_here(action), 0.0, self.is_first, False, 0)
        self.policy.exploration_noise = noise
        with self._computing(self.noise):
            taken = chosen(self.policy, step)
        self.is_first = np.zeros(shape, bool)
        return taken

    def _led_here(self, action: Any) -> np.ndarray:
        """Return the actions that led to an observation, as the actor gives them; zeros where an episode begins."""
        if self.is_first.all():
            return np.zeros((*self.is_first.shape, *self.translation.action_space.shape), np.float32)
        if action is not None:
            return self.translation.taken(action, axes=(self.is_first.ndim,))
        if self.last_action is None:
            raise InputError("which action led to this observation? `act` did not choose it: pass action=…, or reset()")
        return self.last_action

    def _noise_of_actions(self, sample: bool | None) -> float | None:
        """Return what `Policy` takes for its exploration noise."""
        return 0.0 if (self.config.evaluation.sample if sample is None else sample) else None

    def _present(self) -> State:
        """Return the latent states (B, ·) after the last observation. Raises InputError where there was none."""
        if self.is_first.any() or self.policy.state is None:
            raise InputError("no latent state: an episode has just begun; call act or observe first")
        return self.policy.state

    def _repeated(self, state: State, count: int) -> State:
        """Return the present state for each of several dreams."""
        if not self.is_first.shape:
            return state.map(lambda part: part.expand(count, *part.shape[1:]))
        if count != len(self.is_first):
            raise InputError(f"actions for {count} dreams; expected {len(self.is_first)}, one for each of the batch")
        return state

    def _predict(self, state: State) -> Dream:
        settings = self.config.parameters.dreamer
        return predict(self.model, self.critic, state, settings.discount if settings.discount_in_continue else 1.0)

    @contextmanager
    def _computing(self, noise: Noise) -> Iterator[None]:
        """Compute in the block as an evaluation does, with this noise, and leave no setting of torch changed."""
        with usual_types(), precision_kept(), one_thread(), noise.drawn():
            torch.set_float32_matmul_precision(self.precision)
            yield


def _first(dream: Dream) -> Dream:
    """Return the first of a batch of dreams."""
    parts: dict[str, Any] = {name: None if part is None else part[0] for name, part in vars(dream).items()}
    return Dream(**parts)
