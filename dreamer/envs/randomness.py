"""Find, seed, save and restore the random generators of environments."""

import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import deepcopy
from importlib import import_module
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
from gymnasium.utils import seeding

DEPTH = 3  # levels of nested attributes that are searched for generators
NAMES = {"generator", "np_random", "prng", "random", "random_state", "rng"}  # usual names of generators, without _
PLAIN = (type(None), bool, int, float, str, bytes, type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)
FROM_THE_SYSTEM = 2**64  # larger entropy comes from the system, not from a user's seed


def seed_before_reset(env: Any, seed: int) -> None:
    """Seed each generator that an environment's `reset(seed=seed)` may leave to the system's entropy.

    A generator that has a seed keeps it. Python's generators do not tell whether they have one, so they get a new one.
    """
    if getattr(env, "_np_random", 0) is None:  # as `reset` of gymnasium and gym would make it
        env._np_random, _ = seeding.np_random(seed)
    for name, space in _spaces(env).items():
        if getattr(space, "_np_random", 0) is None:
            seeded_space = deepcopy(space)  # all environments of a class may share the space
            seeded_space.seed(seed)
            with suppress(AttributeError):  # a property
                setattr(env, name, seeded_space)
    for number, generator in enumerate(generators(env).values()):
        own_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
        if isinstance(generator, np.random.Generator):
            if _is_from_the_system(generator.bit_generator):
                generator.bit_generator.state = type(generator.bit_generator)(own_seed).state
        elif isinstance(generator, np.random.RandomState):
            if _is_from_the_system(generator._bit_generator):
                generator.seed(own_seed)
        elif isinstance(generator, random.Random):
            generator.seed(own_seed)


def _is_from_the_system(bit_generator: Any) -> bool:
    """Return whether the seed of a bit generator is the system's entropy."""
    entropy = getattr(bit_generator.seed_seq, "entropy", None)
    return isinstance(entropy, int) and entropy >= FROM_THE_SYSTEM


def generators(env: Any) -> dict[str, Any]:
    """Return the generators of random numbers that an environment holds and that can be saved, {path: generator}."""
    return {path: value for path, value in _attributes(env) if can_be_saved(value)}


def unknown_generators(env: Any) -> dict[str, str]:
    """Return the attributes that are named like a generator but cannot be saved, {path: name of the type}."""
    unknown = {}
    for path, value in _attributes(env):
        name = path.split(".")[-1].strip("_")
        if name in NAMES and not can_be_saved(value):
            unknown[path] = type(value).__name__
    return unknown


def _spaces(env: Any) -> dict[str, Any]:
    """Return the spaces of an environment, {name: space}. They may be attributes of its class."""
    return {name: getattr(env, name, None) for name in ("observation_space", "action_space")}


def _attributes(env: Any) -> Iterator[tuple[str, Any]]:
    """Yield (path, value) for each attribute of an environment, and of its attributes, that is not a plain value."""
    shared = random._inst, np.random.mtrand._rand  # type: ignore[attr-defined]
    seen_ids = {id(env), *map(id, shared)}
    level = [("", env)]
    for name, space in _spaces(env).items():
        level.append((f"{name}.", space))
        seen_ids.add(id(space))
    for _ in range(DEPTH):
        next_level = []
        for path, parent in level:
            for name, value in list(getattr(parent, "__dict__", {}).items()):
                if id(value) not in seen_ids and not isinstance(value, PLAIN):
                    seen_ids.add(id(value))
                    yield f"{path}{name}", value
                    next_level.append((f"{path}{name}.", value))
        level = [(path, value) for path, value in next_level if not can_be_saved(value)]


def can_be_saved(thing: Any) -> bool:
    """Return whether something is a generator of NumPy, Python or torch."""
    if isinstance(thing, random.SystemRandom):
        return False
    return isinstance(thing, (np.random.Generator, np.random.RandomState, random.Random)) or _is_of_torch(thing)


def _is_of_torch(thing: Any) -> bool:
    module = getattr(type(thing), "__module__", "")  # SWIG's types, which Box2D uses, have none
    return str(module).split(".")[0] == "torch" and type(thing).__name__ == "Generator"


def state_of(generator: Any) -> Any:
    """Return the state of a generator as plain values."""
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state().tolist()


def set_state(generator: Any, state: Any) -> None:
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
    """The global generators of a process that belongs to one environment: Python's, NumPy's and, if it is imported,
    torch's."""

    def seed(self, seed: int) -> None:
        """Seed the generators of Python and NumPy."""
        random.seed(seed)
        np.random.seed(seed)

    def seed_torch(self, seed: int) -> None:
        """Seed torch's generator. Call it after making the environment, which may import torch."""
        if "torch" in sys.modules:
            sys.modules["torch"].manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generators as plain values."""
        state: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state(legacy=False)}
        if "torch" in sys.modules:
            state["torch"] = sys.modules["torch"].get_rng_state().tolist()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the generators to a state of `state_dict`."""
        random.setstate(state["python"])
        np.random.set_state(state["numpy"])
        if "torch" in state:
            torch = import_module("torch")
            torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
