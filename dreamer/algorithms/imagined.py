"""Imagination through the dynamics with gradients, by a `Scan`, for compiled runs.

Shapes: N trajectories, H horizon, here dim 0; A action size, F feature size.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dreamer.algorithms.losses import Imagination
from dreamer.modules.actor import Actor
from dreamer.modules.distributions import ActionDistribution
from dreamer.modules.rssm import RSSM, State
from dreamer.modules.scan import Compiler, Scan, Tensors

UNIFORM, NORMAL = {torch.rand, torch.rand_like}, {torch.randn, torch.randn_like}


class Noise(NamedTuple):
    """Describes random numbers that a step draws."""

    draw: Callable[..., torch.Tensor]  # torch.rand or torch.randn
    shape: torch.Size
    device: torch.device


class RandomNumbers(TorchFunctionMode):
    """Within its block, torch's random functions return the `given` tensors in order. With None they draw as usual, and
    `drawn` lists what they drew."""

    def __init__(self, given: Iterator[torch.Tensor] | None = None):
        self.given = given
        self.drawn: list[Noise] = []

    def __torch_function__(self, function: Callable, types: Any, arguments: Any = (), keywords: Any = None) -> Any:
        if function not in UNIFORM | NORMAL:
            return function(*arguments, **(keywords or {}))
        if self.given is not None:
            return next(self.given)
        result = function(*arguments, **(keywords or {}))
        self.drawn.append(Noise(torch.rand if function in UNIFORM else torch.randn, result.shape, result.device))
        return result


class ImaginedStep(nn.Module):
    """A step of imagination in the form that a `Scan` calls: h, z, memory, the actor's output and noise → h, z, memory
    and the action."""

    def __init__(self, rssm: RSSM, policy: Callable[[torch.Tensor], ActionDistribution]):
        """policy: as an `Actor` has it."""
        super().__init__()
        self.rssm, self.policy = rssm, policy

    def forward(self, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        num_state_tensors = len(self.rssm.sizes)
        deterministic, stochastic, *memory = tensors[:num_state_tensors]
        actor_output, *noise = tensors[num_state_tensors:]
        with RandomNumbers(iter(noise)):
            action = self.policy(actor_output).rsample()
            state = State(deterministic, stochastic, None, tuple(memory))
            state = self.rssm.imagine_step(state, action)
        return state.deterministic, state.stochastic, *state.memory, action


class StateActor(nn.Module):
    """Applies an actor's network to a state: h, z and memory → the output (N, ·)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, deterministic: torch.Tensor, stochastic: torch.Tensor, *memory: torch.Tensor) -> torch.Tensor:
        return self.network(torch.cat([deterministic, stochastic], -1))


class ImaginedScan:
    """Follows an actor through the prior, as `imagine` does; the gradient passes through the dynamics."""

    def __init__(self, rssm: RSSM, actor: Actor, compiler: Compiler):
        """compiler: returns the compiled form of a graph."""
        self.rssm, self.actor = rssm, actor
        self.scan = Scan(ImaginedStep(rssm, actor.policy), len(rssm.sizes), compiler, StateActor(actor.network))
        self.noises: dict[int, Sequence[Noise]] = {}  # the random numbers that a step draws, by N

    def __call__(self, start: State, horizon: int) -> Imagination:
        """Return `horizon` steps from states (N, ·)."""
        carry = [start.deterministic, start.stochastic, *start.memory]
        deterministic, stochastic, *_, action, actor_output = self.scan(carry, self.draw(start, horizon))
        imagined_feature = torch.cat([deterministic, stochastic], -1).transpose(0, 1)
        feature = torch.cat([start.feature[:, None], imagined_feature], 1)
        # contiguous, as in `imagine`: `randn_like` fills a tensor in the order of its memory
        actor_output = actor_output.transpose(0, 1).contiguous()
        return Imagination(feature, action.transpose(0, 1), actor_output)

    def draw(self, start: State, horizon: int) -> Tensors:
        """Draw the random numbers of all steps, (H, N, ·) each, in the order in which the steps would draw them."""
        trajectories = len(start.deterministic)
        if trajectories not in self.noises:
            devices = [start.deterministic.device] if start.deterministic.is_cuda else []
            with torch.random.fork_rng(devices), torch.no_grad(), RandomNumbers() as numbers:
                self.rssm.imagine_step(start, self.actor(start.feature).rsample())
            self.noises[trajectories] = numbers.drawn
        noise_by_step = []
        for _ in range(horizon):
            noise_by_step.append([draw(shape, device=device) for draw, shape, device in self.noises[trajectories]])
        return [torch.stack(steps) for steps in zip(*noise_by_step, strict=True)]
