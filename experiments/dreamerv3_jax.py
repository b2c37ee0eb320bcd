"""The authors' JAX agent, with the sizes and hyperparameters of one of our configurations: for beside_dreamerv3.py.

Only `their_half` needs JAX and the authors' package. It runs in their environment, which has neither torch nor ours.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from types import ModuleType
from typing import Any

LAYER = {"act": "silu", "norm": "rms", "winit": "trunc_normal_in"}
TRAINED = {"enc", "dyn", "dec", "rew", "con", "pol", "val"}  # modules whose weights the optimiser changes


def their_settings(config: Any) -> dict[str, Any]:
    """Return the settings of their agent that give our networks, batches and losses.

    Raises ValueError for networks that theirs cannot have.
    """
    settings = config.parameters.dreamer
    rssm, actor = settings.rssm, settings.agent.actor
    parts = rssm.recurrent_model, rssm.transition_model, rssm.representation_model
    hidden_sizes = {part.hidden_size for part in parts}
    if len(hidden_sizes) > 1:
        raise ValueError(f"rssm: their networks have one hidden_size, found {sorted(hidden_sizes)}")
    if settings.encoder.architecture != "max_pool":
        raise ValueError(f"encoder.architecture: compared is max_pool, found {settings.encoder.architecture}")
    dynamics = LAYER | {
        "deter": settings.deterministic_size,
        "hidden": hidden_sizes.pop(),
        "stoch": settings.stochastic_size,
        "classes": settings.classes,
        "blocks": rssm.recurrent_model.blocks,
        "imglayers": rssm.transition_model.num_layers,
        "obslayers": rssm.representation_model.num_layers,
        "unimix": settings.unimix,
        "free_nats": settings.free_nats,
    }
    scales = {
        "rec": 1.0,
        "rew": 1.0,
        "con": settings.continue_scale,
        "dyn": settings.kl_dynamics_scale,
        "rep": settings.kl_representation_scale,
        "policy": 1.0,
        "value": 1.0,
        "repval": settings.replay_critic_scale,
    }
    returns = {"slowtar": False, "lam": settings.lambda_}
    return {
        "dyn": {"typ": "rssm", "rssm": dynamics},
        "enc": {"typ": "simple", "simple": layers(settings.encoder) | convolutions(settings.encoder)},
        "dec": {"typ": "simple", "simple": layers(settings.decoder) | convolutions(settings.decoder)},
        "rewhead": two_hot(settings.reward),
        "conhead": layers(settings.continue_) | {"output": "binary"},
        "policy": layers(actor) | {"minstd": actor.min_std, "maxstd": actor.max_std, "outscale": actor.outscale},
        "policy_dist_disc": "categorical",
        "policy_dist_cont": "bounded_normal",
        "value": two_hot(settings.agent.critic),
        "slowvalue": {"rate": settings.slow_critic_fraction, "every": settings.slow_critic_interval},
        "loss_scales": scales,
        "opt": {"lr": settings.model_learning_rate, "agc": settings.agc, "warmup": settings.warm_up},
        "imag_last": settings.imagine_last or 0,
        "imag_length": settings.horizon_length,
        "imag_loss": returns | {"actent": settings.entropy_scale},
        "repl_loss": returns,
        "horizon": 1 / (1 - settings.discount),
        "contdisc": True,
        "retnorm": {"impl": "perc", "limit": 1.0, "debias": False},
        "valnorm": {"impl": "none"},
        "advnorm": {"impl": "none"},
        "reward_grad": True,
        "repval_loss": True,
        "repval_grad": True,
        "ac_grads": False,
        "batch_size": settings.batch_size,
        "batch_length": settings.batch_length,
        "replay_context": 1,  # steps before each window, for the stored latent state
        "seed": 0,
        "logdir": tempfile.gettempdir(),  # nothing is written there
    }


def layers(section: Any) -> dict[str, Any]:
    """Return the hidden layers of one of our networks as arguments of theirs."""
    return LAYER | {"layers": section.num_layers, "units": section.hidden_size}


def two_hot(section: Any) -> dict[str, Any]:
    """Return our reward model or critic as arguments of theirs."""
    return layers(section) | {"output": "symexp_twohot", "outscale": section.outscale, "bins": section.bins}


def convolutions(section: Any) -> dict[str, int]:
    """Return the convolutions of our encoder or decoder as arguments of theirs."""
    return {"depth": section.depth, "kernel": section.kernel_size}


@contextmanager
def their_half(request: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Callable[[int], None]]]:
    """Build their agent and yield (facts, a function that makes a number of updates or actions)."""
    import jax
    import numpy as np

    jax.block_until_ready(jax.jit(abs)(1.0))  # XLA reads its flags here, before their agent replaces them
    sys.modules["embodied.envs"] = ModuleType("embodied.envs")  # imported by their package, but missing in it
    import elements
    from dreamerv3.agent import Agent

    settings, shape = request["settings"], request["observation"]
    if len(shape) == 1:
        observation = elements.Space(np.float32, tuple(shape), -1, 1)
    else:
        channels, height, width = shape
        observation = elements.Space(np.uint8, (height, width, channels), 0, 255)
    flags = {name: elements.Space(bool) for name in ("is_first", "is_last", "is_terminal")}
    observations = {"observation": observation, "reward": elements.Space(np.float32), **flags}
    actions = {"action": elements.Space(np.float32, tuple(request["action"]), -1, 1)}
    # Their profiler would trace updates 100 to 120.
    options = {"compute_dtype": request["dtype"], "precompile": False, "profiler": False}
    agent = Agent(observations, actions, elements.Config(**settings, jax=options))

    def random_data(spaces: dict[str, Any], *size: int) -> dict[str, Any]:
        """Return uniformly random observations and actions, and zeros for everything else."""
        data = {name: np.zeros((*size, *space.shape), space.dtype) for name, space in spaces.items()}
        for name in data.keys() & {"observation", "action"}:
            data[name][:] = np.random.uniform(spaces[name].low, spaces[name].high, data[name].shape)
        return data

    size = settings["batch_size"]
    if request["acts"]:
        step, state = random_data(observations, 1), agent.init_policy(1)
    else:
        steps = settings["replay_context"] + settings["batch_length"]
        batch = next(iter(agent.stream(repeat(random_data(agent.spaces, size, steps)))))
        state = agent.init_train(size)

    def call(number: int) -> None:
        nonlocal state
        for _ in range(number):
            if request["acts"]:
                state, *_ = agent.policy(state, step)
            else:
                state, *_ = agent.train(state, dict(batch))
        jax.block_until_ready((state, agent.params))

    trained = [weights.size for name, weights in agent.params.items() if name.split("/")[0] in TRAINED]
    yield {"parameters": sum(trained)}, call
