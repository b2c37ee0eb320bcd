"""Updates on the imaginary device, and mistakes that must be found in them."""

import warnings
from collections import Counter
from contextlib import ExitStack
from copy import deepcopy
from unittest.mock import patch

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from dreamer import build
from dreamer.algorithms import actor_critic
from dreamer.config.load import load_config
from dreamer.replay.step import Batch
from tests.algorithms.test_recorded_updates import ACTIONS, VERSIONS
from tests.algorithms.test_update import OVERRIDES
from tests.simulated_cuda_graph import tensors

CUDA, STREAM = torch.device("cuda:0"), 7  # of which all updates are made
library = torch.library.Library("aten", "IMPL", "Meta")  # of the shapes that torch's own kernels for CUDA give


def gru_cell(inputs, hidden, state, input_bias=None, hidden_bias=None):
    return torch.empty_like(state), state.new_empty(len(state), 5 * state.shape[1])


def gru_cell_backward(gradient, workspace, has_bias):
    rows, size = gradient.shape
    gates, bias = (workspace.new_empty(*shape, 3 * size) for shape in ((rows,), ()))
    biases = (bias, torch.empty_like(bias)) if has_bias else (None, None)
    return gates, torch.empty_like(gates), torch.empty_like(gradient), *biases


library.impl("_thnn_fused_gru_cell", gru_cell)
library.impl("_thnn_fused_gru_cell_backward", gru_cell_backward)


class Kernels(TorchDispatchMode):
    """Counts operations on the device, but for views and memory alone, and notes those on the host."""

    NONE = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided", "detach"}

    def __init__(self):
        super().__init__()
        self.count, self.on_the_host = 0, Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        name = function._schema.name.removeprefix("aten::")
        if name == "prim::device":  # a question
            return result
        self.count += not (function.is_view or name in self.NONE)
        if any(tensor.device.type == "cpu" for tensor in tensors((arguments, keywords, result))):
            self.on_the_host[name] += 1
        return result


def on_the_device(build):
    """What builds a network builds it on the CPU, and gives one on the device of which the order in memory is the same:
    initialisations read values."""

    def build_there(*arguments):
        with unset_fake_temporarily():
            network = build(*arguments[:-1], torch.device("cpu"))
        for module in network.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(like(parameter)))
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, like(buffer))
        return network

    return build_there


def like(tensor):
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)


def make(config, env, *overrides):
    """(the mode in which tensors have a device and a shape alone, an agent, a batch)."""
    mode = FakeTensorMode()
    with mode, ExitStack() as stack:
        for part in ("build_world_model", "build_actor", "build_critic", "build_ensemble"):
            stack.enter_context(patch.object(build, part, on_the_device(getattr(build, part))))
        copy = patch.object(actor_critic, "deepcopy", lambda critic: deepcopy(critic, {id(mode): mode}))
        stack.enter_context(copy)  # of tensors in this mode
        agent = build.build_algorithm(load_config(config, [*OVERRIDES, *overrides]), env(), CUDA)
        pixels = torch.empty(3, 6, 3, 64, 64, dtype=torch.uint8, device=CUDA)
        others = (torch.empty(3, 6, *size, device=CUDA) for size in ((2,), (), (), ()))
        return mode, agent, Batch(pixels, *others, latent=torch.empty(3, 0, device=CUDA))


def faults(device, config, env, *overrides, planted=lambda agent, batch, metrics: None):
    """(kernels of an update, what a recording could not bear in it). planted: done in each update."""
    kept = []
    try:
        device.take_stream(STREAM, False)
        mode, agent, batch = make(config, env, *overrides)
        for number in range(4):
            device.take_stream(STREAM if number < 3 else STREAM + 1, number == 3)
            with mode, Kernels() as kernels:
                metrics, _ = agent.update(batch)
                kept.append(planted(agent, batch, metrics))
    except RuntimeError as error:
        return 0, [" ".join(str(error).split())[:150]]
    found = [f"{count} x {name} on the host" for name, count in kernels.on_the_host.items()]
    if waits := device.waits_elsewhere():
        found.append(f"{waits} waits of or for other streams than the one that records")
    return kernels.count, found + strange_strides(agent)


def strange_strides(agent):
    """Fused Adam demands the same of a parameter, its gradient and its averages."""
    found = []
    for name, optimizer in agent.optimizers.items():
        state = getattr(optimizer, "adam", None) and optimizer.adam.state
        for number, parameter in enumerate(optimizer.parameters if state else []):
            averages = (state[parameter][kind] for kind in ("exp_avg", "exp_avg_sq"))
            if {part.stride() for part in (parameter.grad, *averages)} != {parameter.stride()}:
                found.append(f"strides of parameter {number} of {name}")
    return found


def reorder(agent, batch, metrics):
    """Lets an average of a convolution's weights, which are channels last, lie in another order."""
    weight = next(part for part in agent.model.parameters() if part.ndim == 4)
    averages = agent.model_optimizer.adam.state[weight]
    averages["exp_avg"] = averages["exp_avg"].contiguous()


MISTAKES = {
    "a value that is read back": lambda agent, batch, metrics: metrics["loss/model"].item(),
    "a choice of rows by a mask": lambda agent, batch, metrics: batch.reward[batch.reward > 0],
    "a tensor of the host": lambda agent, batch, metrics: batch.reward.mean() * torch.zeros(3, 6),
    "a copy from the host": lambda agent, batch, metrics: torch.zeros(3, 6).to(CUDA),
    "a graph that is kept": lambda agent, batch, metrics: agent.model.encoder(batch.observation / 255),
    "averages in another order": reorder,
}


def check_all(device):
    """Print what is found; the exit status."""
    warnings.simplefilter("ignore")
    torch.cuda.is_bf16_supported = lambda *arguments, **keywords: True
    sound = True
    with patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False):
        for config in VERSIONS:
            for actions, env in ACTIONS.items():
                for precision in ("float32", "bfloat16"):
                    kernels, found = faults(device, config, env, f"operation.precision={precision}")
                    print(
                        f"{config!s:32} {actions:11} {precision:9} {kernels:6} kernels  {'; '.join(found) or 'sound'}"
                    )
                    sound &= not found
    for name, planted in MISTAKES.items():
        _, found = faults(device, "dreamer", ACTIONS["continuous"], planted=planted)
        print(f"planted: {name:30} {'; '.join(found) or 'NOT FOUND'}")
        sound &= bool(found)
    return 0 if sound else 1
