"""Optimisers: torch's fused kernels, with the bookkeeping around them.

torch's own classes import torch's compiler at their first call, which nothing here needs: 1.2 seconds of a core and
79 MB in every process that trains (findings/optimizers-import-the-compiler.sh). They also take 0.1 ms more for a step
of 90 parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from nas.types import Optimizer as Name


@dataclass(frozen=True, slots=True)
class Kernel:
    """The arithmetic of a step.

    Attributes:
        move: moves parameters by their gradients and renews their states, which are given by name, a list each.
        states: the name of each state of a parameter as it is kept, and as `move` takes it. All but ``step``, the
            count of steps, have the shape of the parameter. They begin at zero.
    """

    move: Callable[..., None]
    states: Mapping[str, str]


OPTIMIZERS: Mapping[Name, Kernel] = {
    # Loshchilov and Hutter, 2019
    "adamw": Kernel(
        partial(adamw, fused=True, beta1=0.9, beta2=0.999, eps=1e-8, amsgrad=False, max_exp_avg_sqs=[], maximize=False),
        {"step": "state_steps", "exp_avg": "exp_avgs", "exp_avg_sq": "exp_avg_sqs"},
    ),
    "sgd": Kernel(
        partial(sgd, fused=True, momentum=0.9, dampening=0.0, nesterov=False, maximize=False),
        {"momentum_buffer": "momentum_buffer_list"},
    ),
}


class Optimizer:
    """Moves parameters by their gradients.

    On the CPU torch's fused kernels walk through parameter, gradient and state side by side and ignore their strides. A
    row-major gradient of a channels-last weight would change the wrong weights without an error
    (findings/fused-optimizers-ignore-strides.sh); on a GPU the kernels refuse it. Gradients of `Tensor.backward` have
    their parameter's layout, but other gradients, such as TorchJD's, need not have it, nor need states from a file. So
    each of them is brought into the layout of its parameter.

    Args:
        name: a key of `OPTIMIZERS`.
        groups: parameters as ``params``, with settings of their own for ``lr`` and ``weight_decay``.
        learning_rate: of the groups that have none.
        weight_decay: of the groups that have none.

    Attributes:
        param_groups: the groups with all settings, which may be changed between steps.
        state: for each parameter that was moved its tensors by name.
    """

    def __init__(
        self, name: Name, groups: Iterable[Mapping[str, Any]], *, learning_rate: float, weight_decay: float
    ) -> None:
        self._kernel = OPTIMIZERS[name]
        self.param_groups = [{"lr": learning_rate, "weight_decay": weight_decay, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Takes all gradients away."""
        for parameter in self._parameters():
            parameter.grad = None

    @torch.no_grad()
    def step(self, rates: Sequence[Tensor] | None = None) -> None:
        """Moves every parameter that has a gradient.

        Args:
            rates: learning rates of the groups in the place of their ``lr``, each () in float32 on the device.
        """
        for place, group in enumerate(self.param_groups):
            parameters: list[Tensor] = []
            gradients: list[Tensor] = []
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if gradient.stride() != parameter.stride():
                    parameter.grad = gradient = _laid_out(gradient, parameter)
                if parameter not in self.state:
                    self.state[parameter] = self._first(parameter)
                parameters.append(parameter)
                gradients.append(gradient)
            if parameters:
                states = [self.state[parameter] for parameter in parameters]
                given = {taken: [state[kept] for state in states] for kept, taken in self._kernel.states.items()}
                rate = group["lr"] if rates is None else rates[place]
                self._kernel.move(parameters, gradients, **given, lr=rate, weight_decay=group["weight_decay"])

    def state_dict(self) -> dict[str, Any]:
        """Returns what `load_state_dict` takes, as torch's optimisers write it: states by the place of parameters."""
        return {
            "state": {place: self.state[each] for place, each in enumerate(self._parameters()) if each in self.state}
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Takes copies of states that `state_dict` returned, on the device and in the layout of the parameters."""
        parameters = self._parameters()
        self.state = {
            parameters[place]: {
                name: _laid_out(value, parameters[place])
                if value.shape == parameters[place].shape
                else value.to(parameters[place].device, copy=True)
                for name, value in state.items()
            }
            for place, state in saved["state"].items()
        }

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _first(self, parameter: Tensor) -> dict[str, Tensor]:
        """Returns the state of a parameter that was not moved yet."""
        return {
            name: torch.zeros((), device=parameter.device) if name == "step" else torch.zeros_like(parameter)
            for name in self._kernel.states
        }


def _laid_out(values: Tensor, parameter: Tensor) -> Tensor:
    """Returns a copy of values in the memory layout and on the device of their parameter."""
    return torch.empty_like(parameter, requires_grad=False).copy_(values)
