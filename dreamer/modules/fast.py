"""The same networks with the same parameters, computed faster: subclasses that `accelerate` puts in their place.

The plain form is what `model.py`, `encoder.py` and `decoder.py` say; tests hold each of these to it.
"""

import itertools
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from dreamer.modules.ensemble import OneStepModel
from dreamer.modules.rssm import RSSM, RecurrentModel, stack


def accelerate(network):
    """Give the modules of `network` their faster form, and its convolutions the memory order that suits them."""
    for module in network.modules():
        module.__class__ = FASTER.get(type(module), type(module))
        if isinstance(module, nn.ReLU):
            module.inplace = True
    return network.to(memory_format=torch.channels_last)


class FastRSSM(RSSM):
    """Does for all steps at once what no step has to wait for: the noise, and the share that the embedding and
    the action have in a layer's input. The recurrence itself is in float32, whatever the precision."""

    def observe(self, embedding, action, is_first):
        keep = (1 - is_first)[..., None]
        recurrent, representation = self.recurrent_model, self.representation_model
        first, *rest = representation.network
        from_deterministic, from_embedding = _split(first.weight, self.sizes[0])
        from_stochastic, from_action = _split(recurrent.linear.weight, self.sizes[1])
        acted = functional.linear(action * keep, from_action, recurrent.linear.bias).float()
        seen = functional.linear(embedding, from_embedding, first.bias).float()
        noise = torch.randn_like(keep.expand(-1, -1, self.sizes[1]))
        state, posteriors = self.initial_state(len(action)), []
        with torch.autocast(action.device.type, enabled=False):
            for acted_t, seen_t, noise_t, keep_t in zip(
                *(x.unbind(1) for x in (acted, seen, noise, keep)), strict=True
            ):
                hidden = acted_t + functional.linear(state.stochastic * keep_t, from_stochastic)
                deterministic = recurrent.step(hidden, state.deterministic * keep_t)
                output = seen_t + functional.linear(deterministic, from_deterministic)
                for layer in rest:
                    output = layer(output)
                state = representation.sample(deterministic, output, noise_t)
                posteriors.append(state)
        posterior = stack(posteriors)
        return self.transition_model(posterior.deterministic), posterior


class FastRecurrentModel(RecurrentModel):
    """The GRU's products in the configured precision, the rest in float32."""

    def step(self, hidden, deterministic):
        gru, hidden = self.gru, self.activation(hidden)
        if not torch.is_autocast_enabled(hidden.device.type):
            return gru(hidden, deterministic)
        if hidden.is_cuda:  # one fused kernel
            with torch.autocast("cuda", enabled=False):
                return gru(hidden.float(), deterministic)
        reset, update, new = functional.linear(hidden, gru.weight_ih, gru.bias_ih).float().chunk(3, -1)
        gates = functional.linear(deterministic, gru.weight_hh, gru.bias_hh).float().chunk(3, -1)
        new = torch.tanh(new + torch.sigmoid(reset + gates[0]) * gates[2])
        return torch.lerp(new, deterministic, torch.sigmoid(update + gates[1]))


class FastConvTranspose2d(nn.ConvTranspose2d):
    """A transposed convolution without padding; faster for one pixel, and on a CPU with a stride of 2."""

    def forward(self, inputs):
        if inputs.shape[-2:] == (1, 1):  # one pixel: a matrix product
            weight = self.weight.movedim(1, -1)  # channels last
            image = functional.linear(inputs.flatten(1), weight.flatten(1).t()).unflatten(1, weight.shape[1:])
            return (image + self.bias).movedim(-1, 1)
        if inputs.is_cuda or self.stride != (2, 2):
            return super().forward(inputs)
        arguments = inputs, self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            arguments = (argument.to(torch.get_autocast_dtype("cpu")) for argument in arguments)
        return _SubpixelConvolution.apply(*arguments)


class _SubpixelConvolution(torch.autograd.Function):
    """What a transposed convolution of stride 2 gives, where CPUs are slow at it.

    Every second pixel of the result, in either direction, is a plain convolution of its own with
    every second weight; one convolution computes all four kinds, and their order is then mended.
    Going backwards only the gradient of the bias is slow, so it is taken apart.
    """

    @staticmethod
    def forward(ctx, inputs, weight, bias):
        ctx.save_for_backward(inputs, weight)
        size_in, size_out, kernel, _ = weight.shape
        side = -(-kernel // 2)
        phases = functional.pad(weight, (0, 2 * side - kernel) * 2).view(size_in, size_out, side, 2, side, 2)
        phases = phases.flip(2, 4).permute(3, 5, 1, 0, 2, 4).reshape(4 * size_out, size_in, side, side)
        image = functional.conv2d(inputs, phases, bias.repeat(4), padding=side - 1).unflatten(1, (2, 2, size_out))
        shape = len(inputs), size_out, *(2 * (length - 1) + kernel for length in inputs.shape[2:])
        result = torch.empty(shape, dtype=image.dtype, device=image.device, memory_format=torch.channels_last)
        for row, column in itertools.product((0, 1), repeat=2):
            pixels = result[:, :, row::2, column::2]
            pixels.copy_(image[:, row, column, :, : pixels.shape[2], : pixels.shape[3]])
        return result

    @staticmethod
    def backward(ctx, gradient):
        inputs, weight = ctx.saved_tensors
        wanted = [*ctx.needs_input_grad[:2], False]
        arguments = None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1, wanted
        to_inputs, to_weight, _ = torch.ops.aten.convolution_backward(gradient, inputs, weight, *arguments)
        return to_inputs, to_weight, gradient.sum((0, 2, 3))


class FastOneStepModel(OneStepModel):
    """Looks at a few thousand states at a time, and keeps of each only its disagreement and the gradient of that."""

    def disagreement(self, feature, action, measure):
        return _RowByRow.apply(feature, action, partial(super().disagreement, measure=measure))


class _RowByRow(torch.autograd.Function):
    """A function of (..., F) and (..., A) that gives one number for each row, from networks that are frozen in the
    meantime. Its gradient for a row is known before anything follows from it, so nothing else need be kept."""

    ROWS = 2048  # on a CPU, which likes them in its cache; a GPU likes few kernels

    @staticmethod
    def forward(ctx, feature, action, function):
        rows = _RowByRow.ROWS * (8 if feature.is_cuda else 1)
        parts = zip(*(part.flatten(0, -2).split(rows) for part in (feature, action)), strict=True)
        values, to_feature, to_action = zip(*(_RowByRow.with_gradient(function, *rows) for rows in parts), strict=True)
        ctx.save_for_backward(torch.cat(to_feature).view_as(feature), torch.cat(to_action).view_as(action))
        return torch.cat(values).view(feature.shape[:-1])

    @staticmethod
    def with_gradient(function, *rows):
        rows = [part.detach().requires_grad_() for part in rows]
        with torch.enable_grad():
            value = function(*rows)
            return value.detach(), *torch.autograd.grad(value.sum(), rows)

    @staticmethod
    def backward(ctx, gradient):
        return *(gradient[..., None] * kept for kept in ctx.saved_tensors), None


def _split(weight, size):
    """The columns of a layer's weight for the first `size` inputs, and for the rest."""
    return weight[:, :size], weight[:, size:]


FASTER = {
    RSSM: FastRSSM,
    RecurrentModel: FastRecurrentModel,
    OneStepModel: FastOneStepModel,
    nn.ConvTranspose2d: FastConvTranspose2d,
}
