"""Where in an image the evidence for a class lies, from the head's own pooling of feature maps.

A head that averages features f_c over the pixels and multiplies the means by weights w_c computes a logit
``b + sum over pixels of sum_c w_c f_c(pixel) / pixels``, so each pixel has a share of it (class activation mapping,
Zhou et al. 2016, arXiv 1512.04150). The weights are the gradient of the logit by the means. Behind hidden layers they
are the gradient at this image (Grad-CAM, Selvaraju et al. 2017, arXiv 1610.02391, without its ReLU): the shares then
tell how small changes of the features would move the logit, and no longer add up to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.protocols import Abilities
from nas.training.strips import seen

FOR, AGAINST = (213, 94, 0), (59, 139, 208)
"""The colours of evidence for and against a class, which colour-blind people can tell apart."""

STRONGEST = 0.75
"""The share of colour where evidence is strongest."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """The evidence for one class in each of N images.

    Attributes:
        maps: (N, H, W); a pixel's share of the logit, above 0 for the class and below 0 against it.
        rest: (N,); the logit less the sum of the map: the bias, and the share of pixels that a network adds around an
            image.
        exact: whether the logit is such a sum; otherwise the map is that of its gradient.
        denoised: (N, C, H, W); what the network restored.
    """

    maps: Tensor
    rest: Tensor
    exact: bool
    denoised: Tensor


def has_evidence(network: nn.Module) -> bool:
    """Tells whether a network says which part of it makes logits of feature maps."""
    return Abilities.of(network).evidence_head is not None


def evidence_for(network: nn.Module, images: Tensor, classes: Tensor) -> Evidence:
    """Finds the evidence for a class of each image.

    Feature maps of several levels are enlarged to the image, each value to a block of pixels, and added.

    Args:
        network: in evaluation mode.
        images: (N, C, H, W), as the network takes them.
        classes: (N,).

    Raises:
        ConfigError: the network does not say which part of it makes logits of feature maps.
    """
    abilities = Abilities.of(network)
    head = abilities.evidence_head
    if head is None:
        raise ConfigError(
            f"network {type(network).__name__} has no evidence_head, the part that makes logits of feature maps, so "
            "nobody knows where it looks"
        )
    classes = classes.clone()  # a tensor of inference mode cannot be kept for a gradient
    read: list[Sequence[Tensor]] = []
    hook = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    try:
        with torch.no_grad():
            denoised, logits = network(images.contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    features = [each.detach().requires_grad_() for each in read[0]]
    with torch.enable_grad():
        chosen = head(features).gather(1, classes[:, None])
        gradients = torch.autograd.grad(chosen.sum(), features)
    with torch.no_grad():
        height, width = images.shape[-2:]
        inside = [side + -side % abilities.reduction for side in (height, width)]
        maps = torch.zeros(len(images), *inside)
        for feature, gradient in zip(features, gradients, strict=True):
            shares = (feature * gradient).sum(1, keepdim=True)
            block = shares.shape[-2] * shares.shape[-1] / (inside[0] * inside[1])
            maps += block * F.interpolate(shares, size=inside, mode="nearest")[:, 0]
        logit = logits.gather(1, classes[:, None])[:, 0]
        bias = head([torch.zeros_like(each) for each in features]).gather(1, classes[:, None])[:, 0]
        error = (maps.sum((1, 2)) + bias - logit).abs().max()
        exact = bool(error <= 1e-4 * maps.abs().sum((1, 2)).max())
        maps = maps[:, :height, :width]
    return Evidence(maps, logit - maps.sum((1, 2)), exact, denoised)


def coloured(image: Tensor, evidence: Tensor) -> Tensor:
    """Lays the colours of evidence (H, W) over an image (C, H, W): orange for the class, blue against it.

    The strongest evidence of the image, of either sign, has the fullest colour. Returns (3, H, W).
    """
    gray = seen(image).clamp(0, 1).mean(0)
    strength = STRONGEST * evidence.abs() / evidence.abs().max().clamp(min=1e-12)
    orange, blue = (torch.tensor(each).view(3, 1, 1) / 255 for each in (FOR, AGAINST))
    tint = torch.where(evidence > 0, orange, blue)
    return (1 - strength) * gray + strength * tint
