"""Optimisers: torch's fused kernels, with the bookkeeping around them.

torch's own classes import torch's compiler at their first call, which nothing here needs: 1.2 seconds of a core and
79 MB in every process that trains (findings/optimizers-import-the-compiler.sh). They also take 0.1 ms more for a step
of 90 parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from nas.types import Optimizer as Name


class Optimizer:
    """Moves parameters by their gradients.

    On the CPU torch's fused kernels walk through parameter, gradient and state side by side and ignore their strides. A
    row-major gradient of a channels-last weight would change the wrong weights without an error
    (findings/fused-optimizers-ignore-strides.sh); on a GPU the kernels refuse it. Gradients of `Tensor.backward` have
    their parameter's layout, but other gradients, such as TorchJD's, need not have it, nor need states from a file. So
    each of them is brought into the layout of its parameter.

    Args:
        groups: parameters as ``params``, with settings of their own for ``lr`` and ``weight_decay``.
        learning_rate: of the groups that have none.
        weight_decay: of the groups that have none.

    Attributes:
        param_groups: the groups with all settings, which may be changed between steps.
        state: for each parameter that was moved its tensors by name.
    """

    names: ClassVar[tuple[str, ...]]
    """The tensors of a parameter's state that have its shape."""

    def __init__(self, groups: Iterable[Mapping[str, Any]], *, learning_rate: float, weight_decay: float) -> None:
        self.param_groups = [{"lr": learning_rate, "weight_decay": weight_decay, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Takes all gradients away."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Moves every parameter that has a gradient."""
        for group in self.param_groups:
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
                self._move(parameters, gradients, [self.state[each] for each in parameters], group)

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
                # The count of steps does not belong to single elements of the parameter.
                name: _laid_out(value, parameters[place])
                if name in self.names
                else value.to(parameters[place].device, copy=True)
                for name, value in state.items()
            }
            for place, state in saved["state"].items()
        }

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _first(self, parameter: Tensor) -> dict[str, Tensor]:
        """Returns the state of a parameter that was not moved yet."""
        return {name: torch.zeros_like(parameter) for name in self.names}

    def _move(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        group: Mapping[str, Any],
    ) -> None:
        """Moves the parameters of one group and renews their states."""
        raise NotImplementedError


class AdamW(Optimizer):
    """AdamW (Loshchilov and Hutter, 2019) with betas of 0.9 and 0.999."""

    names = ("exp_avg", "exp_avg_sq")

    def _first(self, parameter: Tensor) -> dict[str, Tensor]:
        return {"step": torch.zeros((), device=parameter.device), **super()._first(parameter)}

    def _move(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        group: Mapping[str, Any],
    ) -> None:
        adamw(
            parameters,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


class Momentum(Optimizer):
    """Stochastic gradient descent with a momentum of 0.9."""

    names = ("momentum_buffer",)

    def _move(
        self,
        parameters: list[Tensor],
        gradients: list[Tensor],
        states: Sequence[Mapping[str, Tensor]],
        group: Mapping[str, Any],
    ) -> None:
        sgd(
            parameters,
            gradients,
            [state["momentum_buffer"] for state in states],
            fused=True,
            weight_decay=group["weight_decay"],
            momentum=0.9,
            lr=group["lr"],
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


OPTIMIZERS: Mapping[Name, type[Optimizer]] = {"adamw": AdamW, "sgd": Momentum}


def _laid_out(values: Tensor, parameter: Tensor) -> Tensor:
    """Returns a copy of values in the memory layout and on the device of their parameter."""
    return torch.empty_like(parameter, requires_grad=False).copy_(values)
