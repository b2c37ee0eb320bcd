"""The optimiser: Adam whose gradient is clipped by its norm, and which moves its own parameters only."""

import torch


class ClippedAdam:
    """Adam over the parameters of a module, the gradient's norm clipped at `clip_grad` before each step."""

    def __init__(self, module, learning_rate, adam_epsilon, clip_grad, grad_norm_type):
        self.parameters = list(module.parameters())
        on_gpu = self.parameters[0].is_cuda
        self.kernels = {"fused": True, "capturable": True} if on_gpu else {"fused": None, "capturable": False}
        self.adam = torch.optim.Adam(self.parameters, lr=learning_rate, eps=adam_epsilon, **self.kernels)
        self.clip_grad = clip_grad
        self.grad_norm_type = grad_norm_type

    def step(self, loss, retain_graph=False):
        """Descend `loss`; returns the gradient's norm from before the clipping.

        retain_graph: whether another loss that shares a part with this one comes after it.

        Whatever else the loss was computed from is frozen: the gradient passes through it on its
        way to our parameters, but is neither computed for it nor stored in it.
        """
        self.adam.zero_grad()
        loss.backward(inputs=self.parameters, retain_graph=retain_graph)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_grad, self.grad_norm_type)
        self.adam.step()
        return norm

    def state_dict(self):
        return self.adam.state_dict()

    def load_state_dict(self, state):
        """Go back to a state, which may come from another kind of device."""
        groups = [group | self.kernels for group in state["param_groups"]]
        self.adam.load_state_dict(state | {"param_groups": groups})
