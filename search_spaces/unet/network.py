"""The U-Net from top to bottom, and its cost."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from nas.types import Cost, Task
from search_spaces.unet import cost
from search_spaces.unet.blocks import BLOCKS, Down, Up, conv
from search_spaces.unet.fusion import FUSIONS, GATES, Gate
from search_spaces.unet.heads import Head, NoHead
from search_spaces.unet.spec import UNetSpec


class UNet(nn.Module):
    """noisy (N, C, H, W) -> denoised (N, C, H, W), not clipped, and logits (N, K), always both.

        x_1 = stem(noisy)
        s_l = Enc_l(x_l),  x_{l+1} = Down_l(s_l)                    l = 1..L
        u_L = s_L,  u_l = Dec_l(fuse(Up_l(u_{l+1}), gate_l(s_l)))   l = L-1..1
        denoised = output(u_1),  logits = head(u_L or u_1)

    This is U-Net (Ronneberger et al. 2015) with the decoder level of Multi-ResNet (arXiv 2305.19638) and
    the skip gates of AddUNet (arXiv 2601.13208). Images of any size are padded on the right and at the
    bottom, by repeating the edge, to a multiple of the deepest level's reduction; the result is cropped
    back. The head sees the padded features. Programs of torch.export need sides longer than the reduction.
    """

    def __init__(self, spec: UNetSpec, task: Task) -> None:
        super().__init__()
        widths, kernel = spec.widths, spec.kernel
        block, fusion = BLOCKS[spec.block], FUSIONS[spec.fusion]
        self.reduction = spec.reduction
        self.attach = spec.head_attach
        self.stem = conv(task.channels, widths[0], kernel)
        self.encoders = nn.ModuleList(block(w, w, kernel, spec.norm) for w in widths)
        self.downs = nn.ModuleList(Down(w, below, kernel, spec.resampling) for w, below in pairwise(widths))
        self.ups = nn.ModuleList(Up(below, w, kernel, spec.resampling) for w, below in pairwise(widths))
        self.skip_gates = nn.ModuleList(GATES[spec.gate](w) for w in widths[:-1])
        self.fusions = nn.ModuleList(fusion(w) for w in widths[:-1])
        self.decoders = nn.ModuleList(block(fusion.multiple * w, w, kernel, spec.norm) for w in widths[:-1])
        self.output = conv(widths[0], task.channels, 1)
        attached = widths[-1] if spec.head_attach == "bottleneck" else widths[0]
        self.head = (
            Head(attached, task.classes, spec.head_hidden, spec.head_width, spec.head_dropout)
            if task.classifies
            else NoHead()
        )

    def forward(self, noisy: Tensor) -> tuple[Tensor, Tensor]:
        height, width = noisy.shape[-2:]
        bottom, right = -height % self.reduction, -width % self.reduction
        state: Tensor = self.stem(F.pad(noisy, (0, right, 0, bottom), mode="replicate"))

        skips = []
        for encoder, down in zip(self.encoders, self.downs, strict=False):
            skips.append(encoder(state))
            state = down(skips[-1])
        bottleneck = state = self.encoders[-1](state)
        for level in reversed(range(len(skips))):
            skip = self.skip_gates[level](skips[level])
            state = self.decoders[level](self.fusions[level](self.ups[level](state), skip))

        # Negative padding, not slicing: a program of torch.export that slices here refuses other sizes.
        denoised = F.pad(self.output(state), (0, -right, 0, -bottom))
        return denoised, self.head(bottleneck if self.attach == "bottleneck" else state)

    def gates(self) -> list[Tensor]:
        """Learned skip gates, shallow first, each () or (C,); empty when skips are not gated."""
        values = (gate.value() for gate in self.skip_gates if isinstance(gate, Gate))
        return [value.detach() for value in values if value is not None]

    @staticmethod
    def cost(spec: UNetSpec, task: Task) -> Cost:
        """Parameters, and MACs of one image of the task with its padding, part by part as they are built."""
        widths, kernel = spec.widths, spec.kernel
        block, fusion = BLOCKS[spec.block], FUSIONS[spec.fusion]
        height, width = (side + -side % spec.reduction for side in (task.height, task.width))
        shrink = 1 if spec.resampling == "none" else 4
        pixels = [height * width // shrink**level for level in range(spec.levels)]
        attached = widths[-1] if spec.head_attach == "bottleneck" else widths[0]
        return cost.total(
            cost.conv(task.channels, widths[0], kernel, pixels[0]),
            *(block.cost(w, w, kernel, spec.norm, p) for w, p in zip(widths, pixels, strict=True)),
            *(
                cost.total(
                    Down.cost(w, below, kernel, spec.resampling, p_below),
                    Up.cost(below, w, kernel, p_below),
                    GATES[spec.gate].cost(w),
                    fusion.cost(w, p),
                    block.cost(fusion.multiple * w, w, kernel, spec.norm, p),
                )
                for (w, below), (p, p_below) in zip(pairwise(widths), pairwise(pixels), strict=True)
            ),
            cost.conv(widths[0], task.channels, 1, pixels[0]),
            Head.cost(attached, task.classes, spec.head_hidden, spec.head_width) if task.classifies else cost.NOTHING,
        )
