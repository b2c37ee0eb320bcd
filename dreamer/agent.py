"""A trained agent for other programs: `Agent.load("runs/walker").act(observation)`.

Shapes: B batch, T time, F feature size, M memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_map

from dreamer.algorithms.dream import surprise
from dreamer.algorithms.policy import Policy
from dreamer.config.load import Config
from dreamer.envs.spaces import Spaces
from dreamer.envs.translation import Translation
from dreamer.errors import InputError
from dreamer.exported import find_exported, read_exported
from dreamer.replay.step import Step
from dreamer.training.agent_parts import Weights, build_networks, read_run
from dreamer.training.collect import choose_action
from dreamer.training.device import preserved_precision, select_device, set_precision
from dreamer.training.imagining import Imagining
from dreamer.training.run_folder import find_run
from dreamer.training.seeding import RandomStream
from dreamer.training.torch_settings import default_types
from dreamer.training.traced_policy import trace_networks


class Agent(Imagining):
    """A world model and an actor, in the environment's own units and keys.

    Each method takes one observation or a batch of B, each with a latent state of its own. With
    `environment.frame_skip` in the run's configuration, the environment takes each action `frame_skip` times before the
    agent observes again.
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
        """config, spaces, weights, iteration: as in `AgentParts`.

        seed: of the random latent states and sampled actions; None: the seed of an evaluation of the run at this
        iteration. Raises ConfigError if networks do not fit, NotFiniteError.
        """
        self.config, self.spaces, self.iteration, self.device = config, spaces, iteration, select_device(device)
        self.translation = Translation(spaces, config.environment)
        seeds = (config.operation.seed, iteration) if seed is None else (seed,)
        self.random_stream = RandomStream(self.device, *seeds)
        self.dream_random_stream = RandomStream(self.device, *seeds, 1)
        with default_types(), preserved_precision(), RandomStream(self.device, 0).used():
            set_precision(config, self.device)
            self.precision = torch.get_float32_matmul_precision()
            networks = build_networks(config, self.translation, weights, self.device)
        self.model, self.actor = networks["model"], networks["actor"]
        self.critic, self.one_step_model = networks.get("critic"), networks.get("one_step_model")
        self.policy = Policy(self.model, self.actor)
        if config.operation.fast_paths:
            trace_networks(self.policy, patience=50)
        self.samples = bool(config.evaluation.sample)  # read once: that takes a tenth of `act`
        self.is_first = np.array(True)  # () or (B,): whether an episode begins with the next observation
        self.last_action: np.ndarray | None = None  # in the agent's form; None unless `act` was called last

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
        """The environment's own observation space. For an agent that sees rendered frames, the space of the frames in
        training; frames of other sizes are resized."""
        return self.spaces.observation

    @property
    def action_space(self) -> Any:
        """The environment's own action space."""
        return self.spaces.action

    @property
    def frame_skip(self) -> int:
        """The number of times that the environment must take each action before the next observation."""
        return self.config.environment.frame_skip

    def reset(self, done: Any = None) -> None:
        """Begin an episode with the next observation.

        done: (B,), True where one begins; None: everywhere, and the next batch may have another size.
        """
        if done is None or self.is_first.all():
            self.is_first = np.ones_like(self.is_first)
            return
        done = np.asarray(done)
        if done.dtype != bool or done.shape != self.is_first.shape:
            found, expected = f"{done.dtype} {done.shape}", f"bool {self.is_first.shape}"
            raise InputError(f"reset takes one flag for each observation of the batch, {expected}, not {found}")
        self.is_first = self.is_first | done

    def act(self, observation: Any, sample: bool | None = None, *, action: Any = None) -> Any:
        """Return the action for an observation, or those for a batch, as the environment takes them: a dict or tuple
        where its action space is one, each part of a batch with a first axis.

        sample: whether to sample the actor's distribution, else its mode; None: as evaluations of the run do. action:
        the one that led to the observation, if it was not the one that `act` returned. Raises InputError.
        """
        self.last_action = self._filter(observation, action, self._exploration_noise(sample))
        return self.translation.env_action(self.last_action)

    def observe(self, observation: Any, action: Any = None) -> None:
        """Update the latent state from an observation, without acting: someone else chooses the actions.

        action: the one that led to the observation; not needed for the first one of an episode. Raises InputError.
        """
        self._filter(observation, action, exploration_noise=None)
        self.last_action = None

    @property
    def state(self) -> np.ndarray:
        """The latent state after the last observation, float32 (F + M,) or (B, F + M).

        It can be set to a state of an agent of the same run, or of a `Dream`. Raises InputError if nothing was observed
        since the beginning of an episode.
        """
        stored = self._current_state().stored.cpu().numpy().copy()
        return stored if self.is_first.shape else stored[0]

    @state.setter
    def state(self, stored: Any) -> None:
        self.policy.state, is_batch = self._start_states(stored)
        self.is_first = np.zeros(len(self.policy.state.deterministic) if is_batch else (), bool)
        self.last_action = None

    @torch.inference_mode()
    def surprise(self, observation: Any, action: Any = None) -> np.ndarray:
        """Return how unexpected an observation is, KL(posterior || prior) in nats: () or (B,).

        The agent does not change, so call it before `act` or `observe`. Arguments as for `observe`.
        """
        agent_observation, size = self.translation.agent_observation(observation)
        batch_size = size or 1
        all_begin = bool(self.is_first.all())
        if not all_begin and self.is_first.size != batch_size:
            raise InputError(f"{batch_size} observations; expected {self.is_first.size} as before")
        batch = tree_map(
            lambda array: torch.tensor(array if size else array[None], device=self.device), agent_observation
        )
        is_first = torch.tensor(np.broadcast_to(self.is_first, batch_size).copy(), device=self.device).float()
        actions = np.broadcast_to(self._last_actions(action), (batch_size, *self.translation.action_space.shape))
        with self._inference_settings(self.dream_random_stream):
            state = self.model.rssm.initial_state(batch_size) if all_begin else self.policy.state
            assert state is not None, "an episode goes on, so there is a state"
            kl = surprise(self.model, state, batch, torch.tensor(actions.copy(), device=self.device), is_first)
        return kl if size else kl[0]

    def _filter(self, observation: Any, action: Any, exploration_noise: float | None) -> np.ndarray:
        """Filter an observation, or a batch, and return the actor's actions, (A,) or (B, A)."""
        agent_observation, size = self.translation.agent_observation(observation)
        shape = () if size is None else (size,)
        if shape != self.is_first.shape:
            if not self.is_first.all():
                found, expected = f"{shape} observations", f"{self.is_first.shape} as before"
                raise InputError(f"{found}; expected {expected}; call reset() where other episodes begin")
            self.is_first = np.ones(shape, bool)
            self.policy.state = None
        step = Step(agent_observation, self._last_actions(action), 0.0, self.is_first, False, 0)
        self.policy.exploration_noise = exploration_noise
        with self._inference_settings(self.random_stream):
            actions = choose_action(self.policy, step)
        self.is_first = np.zeros(shape, bool)
        return actions

    def _last_actions(self, action: Any) -> np.ndarray:
        """Return the actions that led to an observation, in the agent's form; zeros if all episodes begin with it."""
        if self.is_first.all():
            return np.zeros((*self.is_first.shape, *self.translation.action_space.shape), np.float32)
        if action is not None:
            return self.translation.agent_action(action, axes=(self.is_first.ndim,))
        if self.last_action is None:
            raise InputError("which action led to this observation? `act` did not choose it: pass action=…, or reset()")
        return self.last_action
