"""The random numbers of environments: whatever they are drawn from, they follow from the seed and can be saved."""

import random
import sys
from contextlib import suppress
from copy import deepcopy
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import gym
import numpy as np

DEPTH = 3  # attributes of attributes of attributes of an environment are looked at
NAMES = {"generator", "np_random", "prng", "random", "random_state", "rng"}  # of generators, but for underscores
PLAIN = (type(None), bool, int, float, str, bytes, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
FROM_THE_SYSTEM = 2**64  # entropy above it nobody has written down


def seed_before_reset(env, seed):
    """Seed what an environment's `reset(seed=seed)` may leave to the system's entropy. What has a seed keeps it, but
    for Python's generators, which do not tell."""
    if getattr(env, "_np_random", 0) is None:  # what gym's own reset would make of it, too
        env._np_random, _ = gym.utils.seeding.np_random(seed)
    for name, space in _spaces(env).items():
        if getattr(space, "_np_random", 0) is None:
            own = deepcopy(space)  # it may be that of all environments of a class
            own.seed(seed)
            with suppress(AttributeError):  # a property
                setattr(env, name, own)
    for number, generator in enumerate(generators(env).values()):
        own = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        if isinstance(generator, np.random.Generator):
            if _is_from_the_system(generator.bit_generator):
                generator.bit_generator.state = type(generator.bit_generator)(own).state
        elif isinstance(generator, random.Random) or (
            isinstance(generator, np.random.RandomState) and _is_from_the_system(generator._bit_generator)
        ):
            generator.seed(own)


def _is_from_the_system(bit_generator):
    entropy = getattr(bit_generator.seed_seq, "entropy", None)
    return isinstance(entropy, int) and entropy >= FROM_THE_SYSTEM


def generators(env):
    """The generators of random numbers that an environment holds, {path: generator}, of kinds that can be saved."""
    return {path: thing for path, thing in _held(env) if can_be_saved(thing)}


def unknown_generators(env):
    """What an environment holds under the name of a generator without being one of those, {path: its type's name}."""
    named = ((path, thing) for path, thing in _held(env) if path.split(".")[-1].strip("_") in NAMES)
    return {path: type(thing).__name__ for path, thing in named if not can_be_saved(thing)}


def _spaces(env):
    """The spaces of an environment, {name: space}; often they are attributes of its class."""
    return {name: getattr(env, name, None) for name in ("observation_space", "action_space")}


def _held(env):
    """(path, thing) of what is no plain value among the attributes of an environment and of what these hold."""
    seen, level = {id(env), id(random._inst), id(np.random.mtrand._rand)}, [("", env)]
    for name, space in _spaces(env).items():
        level.append((f"{name}.", space))
        seen.add(id(space))
    for _ in range(DEPTH):
        deeper = []
        for path, thing in level:
            for name, value in list(getattr(thing, "__dict__", {}).items()):
                if id(value) not in seen and not isinstance(value, PLAIN):
                    seen.add(id(value))
                    yield f"{path}{name}", value
                    deeper.append((f"{path}{name}.", value))
        level = [(path, thing) for path, thing in deeper if not can_be_saved(thing)]


def can_be_saved(thing):
    """Whether something is a generator of NumPy, Python or torch."""
    if isinstance(thing, random.SystemRandom):
        return False
    return isinstance(thing, (np.random.Generator, np.random.RandomState, random.Random)) or _is_of_torch(thing)


def _is_of_torch(thing):
    module = getattr(type(thing), "__module__", "")  # a type of SWIG, of which Box2D is made, has none
    return str(module).split(".")[0] == "torch" and type(thing).__name__ == "Generator"


def state_of(generator):
    """The state of a generator, of plain values."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state().tolist()


def set_state(generator, state):
    """Put a generator to a state of `state_of`."""
    if isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif isinstance(generator, np.random.RandomState):
        generator.set_state(state)
    elif isinstance(generator, random.Random):
        generator.setstate(state)
    else:
        torch = sys.modules["torch"]
        generator.set_state(torch.tensor(state, dtype=torch.uint8))


class ProcessRandomness:
    """The generators that all code of a process shares: Python's, NumPy's and, where something has imported it,
    torch's. For a process that belongs to one environment."""

    def seed(self, seed):
        random.seed(seed)
        np.random.seed(seed)

    def seed_torch(self, seed):
        """Once the environment, which may have imported it, is there."""
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)

    def state_dict(self):
        state = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
        if "torch" in sys.modules:
            state["torch"] = sys.modules["torch"].get_rng_state().tolist()
        return state

    def load_state_dict(self, state):
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        if "torch" in state:
            torch = import_module("torch")
            torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
