"""The losses of denoising and classification combined into the gradients of one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from nas.types import Balancing, Recipe


class Balance(nn.Module):
    """``L_denoise + lambda * L_classify`` with the recipe's lambda, as AddUNet has it (arXiv 2601.13208)."""

    capturable: ClassVar[bool] = True
    """Whether a device does the same work in every step (see `nas.training.captured`)."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.weight = recipe.classification_weight

    def backward(self, denoise: Tensor, classify: Tensor, penalty: Tensor | None, inputs: Sequence[Tensor]) -> None:
        """Adds gradients to `inputs`, the network's parameters, and to the balance's own parameters.

        Args:
            denoise, classify: losses (); one of them may be a constant.
            penalty: the network's own term (), which is never weighted; None for none.
            inputs: the network's parameters.
        """
        total = self.total(denoise, classify)
        (total if penalty is None else total + penalty).backward()

    def total(self, denoise: Tensor, classify: Tensor) -> Tensor:
        return denoise + self.weight * classify


class Uncertainty(Balance):
    """Learned weights from each task's homoscedastic uncertainty (Kendall et al. 2018, arXiv 1705.07115, eq. 10).

    ``L_d / (2 sigma_d^2) + ln sigma_d + L_c / sigma_c^2 + ln sigma_c``, with s = ln sigma^2 learned from 0.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        self.log_variances = nn.Parameter(torch.zeros(2))

    def total(self, denoise: Tensor, classify: Tensor) -> Tensor:
        of_denoise, of_classify = torch.exp(-self.log_variances)
        total: Tensor = 0.5 * of_denoise * denoise + of_classify * classify + 0.5 * self.log_variances.sum()
        return total


class Surgery(Balance):
    """PCGrad (Yu et al. 2020, arXiv 2001.06782, algorithm 1), from TorchJD.

    There is a gradient of L_denoise, one of lambda * L_classify, and one of the penalty if there is one. Each gradient
    loses the part that points against another one, and then they are summed. Without conflict this is the step of the
    fixed balance.
    """

    capturable = False  # the order in which gradients are projected is drawn by the program, anew in each step

    def __init__(self, recipe: Recipe) -> None:
        super().__init__(recipe)
        from torchjd.aggregation import PCGrad  # the import takes half a second, which other recipes need not wait for

        self.aggregator = PCGrad()

    def backward(self, denoise: Tensor, classify: Tensor, penalty: Tensor | None, inputs: Sequence[Tensor]) -> None:
        from torchjd import autojac

        losses = [denoise, self.weight * classify, *([] if penalty is None else [penalty])]
        # Losses are taken one at a time, because some operations cannot give the gradients of several losses at once.
        autojac.backward(losses, inputs=inputs, parallel_chunk_size=1)
        autojac.jac_to_grad(inputs, self.aggregator)


BALANCES: Mapping[Balancing, type[Balance]] = {"fixed": Balance, "uncertainty": Uncertainty, "surgery": Surgery}
