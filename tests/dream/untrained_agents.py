"""Small untrained agents, which answer quickly, and their sessions."""

import functools

import torch

from dreamer import Agent
from dreamer.build import build_actor, build_critic, build_ensemble, build_world_model
from dreamer.config.load import load_config
from dreamer.envs.make import make_eval_env
from dreamer.tools.dream.reality import Reality
from dreamer.tools.dream.session import Session
from tests.toys import SMALL

TINY = [*SMALL, "parameters.dreamer.encoder.depth=2", "parameters.dreamer.decoder.depth=2"]
TINY += ["environment.benchmark=gymnasium", "environment.frame_skip=1", "operation.seed=5"]
TINY += [f"parameters.plan2explore.{key}" for key in ("num_ensemble=2", "one_step_model.hidden_size=8")]
VECTOR, DICT, PIXELS = (
    ["environment.task_name=tests.envs.toy_gymnasium:Vector-v0"],  # a number in, a number from -2 to 4 out; 4 steps
    ["environment.task_name=tests.envs.toy_gymnasium:Noisy-v0"],  # a picture, numbers and texts in, 1, 2 or 3 out
    ["environment.task_name=tests.envs.toy:Toy-v0", "environment.from_pixels=True"],  # 5 steps
)


@functools.cache
def _parts(names, *overrides):
    """Return the arguments of `Agent`: configuration, spaces, weights and iteration."""
    config = load_config(names, [*TINY, *overrides], warns=False)
    env = make_eval_env(config.environment, 5)
    torch.manual_seed(1)
    cpu = torch.device("cpu")
    model = build_world_model(config, env, cpu)
    networks = {"model": model, "actor": build_actor(config, env, cpu), "critic": build_critic(config, cpu)}
    if names == "plan2explore":
        networks["one_step_model"] = build_ensemble(config, env, model.encoder.embedding_size, cpu)
    return config, env.unwrapped_spaces, {name: network.state_dict() for name, network in networks.items()}, 3


def agent(names="dreamer", task=VECTOR, *overrides):
    return Agent(*_parts(names, *task, *overrides))


def session(names="dreamer", task=VECTOR, *overrides):
    own = agent(names, task, *overrides)
    return Session(own, Reality(own))
