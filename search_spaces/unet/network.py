"""The U-Net from top to bottom, alone or as two columns, and its cost."""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.types import Cost, Task
from search_spaces.unet import cost
from search_spaces.unet.blocks import BLOCKS, EXTRA, POOLING_NORMS, Down, HaarDown, Stage, Up, concatenated, conv
from search_spaces.unet.fusion import FUSIONS, GATES, Gate
from search_spaces.unet.heads import Head, NoHead
from search_spaces.unet.sharing import SHARINGS, Exchange, Gather, Shortcut
from search_spaces.unet.spec import Block, Norm, UNetSpec

Outputs = tuple[Tensor, Tensor]


def build(spec: UNetSpec, task: Task) -> UNet | Columns:
    """Builds a network with fresh weights: noisy (N, C, H, W) -> denoised (N, C, H, W), not clipped, and logits (N,
    K)."""
    return UNet(spec, task) if spec.columns == 1 else Columns(spec, task)


@lru_cache(maxsize=4096)  # proposals of a search ask for the same networks under many recipes
def cost_of(spec: UNetSpec, task: Task) -> Cost:
    """Returns parameters and MACs of the network that `build` makes, for one image of the task."""
    return UNet.cost(spec, task) if spec.columns == 1 else Columns.cost(spec, task)


class UNet(nn.Module):
    """One trunk for one task or for both.

        x_1 = stem(noisy)
        s_l = Enc_l(x_l),  x_{l+1} = Down_l(s_l)                    l = 1..L
        u_L = s_L,  u_l = Dec_l(fuse(Up_l(u_{l+1}), gate_l(s_l)))   l = L-1..1
        denoised = output(u_1),  logits = head(u_L, u_1 or all of them)

    This is U-Net (Ronneberger et al. 2015) with the decoder level of Multi-ResNet (arXiv 2305.19638). With a residual
    update s_l = x_l + r_l, where r_l is the residual of Enc_l. With a subtractive update, as in AddUNet (arXiv
    2601.13208), x_l - r_l is passed on and r_l is the skip, on all levels: u_{L+1} = x_L - r_L. With ``dense`` fusion
    the levels also contain the nodes of U-Net++ (arXiv 1807.10165) between s_l and u_l.

    Images of any size are padded on the right and at the bottom, by repeating the edge, to a multiple of the deepest
    level's reduction, and the result is cropped back. The head sees the padded features. Programs of torch.export need
    sides longer than the reduction.

    Attributes:
        tasks: the tasks that it learns, of ``denoise`` and ``classify``. The output of the other one is constant: the
            noisy image itself, or logits of zero.
    """

    capturable = True

    def __init__(self, spec: UNetSpec, task: Task) -> None:
        super().__init__()
        self.spec, self.nodes = spec, spec.nodes
        self.tasks = ("denoise", "classify") if spec.tasks == "joint" else (spec.tasks,)
        widths, kernels, nodes = spec.widths, spec.kernels, sorted(self.nodes)
        steps = [(*pair, kernel) for pair, kernel in zip(pairwise(widths), kernels[1:], strict=True)]
        gate, fusion = GATES[spec.gate], FUSIONS[spec.fusion]
        self.stem = conv(task.channels, widths[0], kernels[0])
        self.encoders = nn.ModuleList(
            _stage(spec, w, w, kernel) for w, kernel in zip(widths, kernels[: spec.learned], strict=False)
        )
        self.downs = nn.ModuleList(
            HaarDown(w, below) if spec.encoder == "haar" else Down(w, below, kernel, spec.resampling)
            for w, below, kernel in steps
        )
        self.ups = nn.ModuleDict({n.name: Up(n.below, n.width, n.kernel, n.resampling) for n in nodes})
        self.skip_gates = nn.ModuleDict({n.name: gate(n.width) for n in nodes})
        self.fusions = nn.ModuleDict({n.name: fusion(n.width) for n in nodes})
        self.decoders = nn.ModuleDict(
            {
                n.name: _stage(spec, fusion.channels(n.width, n.skips), n.width, n.kernel, spec.extra_blocks)
                for n in nodes
            }
        )
        if "denoise" in self.tasks:
            self.output = conv(widths[0], task.channels, 1)
        self.head = _head(spec, task) if "classify" in self.tasks and task.classifies else NoHead(task.classes)

    def forward(self, noisy: Tensor) -> Outputs:
        run = self.run(noisy)
        return _to_the_end(run, next(run))

    def run(self, noisy: Tensor) -> Generator[Tensor, Tensor, Outputs]:
        """Runs the forward pass as a generator: it yields its state after every stage, and goes on with the state that
        it is sent."""
        spec = self.spec
        height, width = noisy.shape[-2:]
        bottom, right = -height % spec.reduction, -width % spec.reduction
        state = self.stem(F.pad(noisy, (0, right, 0, bottom), mode="replicate"))

        rows: list[list[Tensor]] = []  # for each level: the skip, then the decoder's nodes in order
        for level in range(spec.levels):
            if level > 0:
                state = self.downs[level - 1](state)
            residual = None
            if level < spec.learned:
                state, residual = self._update(cast("Stage", self.encoders[level]), state)
                state = yield state
            rows.append([state if residual is None else residual])
        if spec.update == "subtractive":
            rows.append([state])

        for node in self.nodes:
            name, level = node.name, node.level
            state = self.ups[name](rows[level + 1][-1])
            skip, *earlier = rows[level]
            skips = concatenated(self.skip_gates[name](skip, state), *earlier)
            state = yield self.decoders[name](self.fusions[name](state, skips))
            rows[level].append(state)

        features = {"bottleneck": rows[-1:], "decoder": rows[:1], "all": rows}[spec.head_attach]
        logits = self.head([row[-1] for row in features])
        if "denoise" not in self.tasks:
            return noisy.clone(), logits
        # Padding is negative instead of a slice, because a program of torch.export that slices here refuses other
        # sizes.
        output = F.pad(self.output(state), (0, -right, 0, -bottom))
        return noisy - output if spec.prediction == "noise" else output, logits

    def _update(self, stage: Stage, state: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns the state after an encoder stage, and the residual where it is the skip."""
        if self.spec.update == "plain":
            return stage(state), None
        residual = stage.residual(state)
        return (state - residual, residual) if self.spec.update == "subtractive" else (state + residual, None)

    @property
    def reach(self) -> int | None:
        """The largest distance in pixels over which an output pixel depends on the input; None for the whole image."""
        return reach(self.spec)

    @property
    def reduction(self) -> int:
        """The number of pixels to a multiple of which images are padded inside."""
        return self.spec.reduction

    @property
    def evidence_head(self) -> Head | None:
        """The head, from which it is found where the evidence for a class lies; None where no classes are learned."""
        return self.head if isinstance(self.head, Head) else None

    def gates(self) -> list[Tensor]:
        """Returns the learned skip gates, shallow first, each () or (C,); empty when gates are absent or depend on
        content."""
        values = (gate.value() for gate in self.skip_gates.values() if isinstance(gate, Gate))
        return [value.detach() for value in values if value is not None]

    def writers(self) -> list[Tensor]:
        """Returns, for each stage in order, the weights (C, ...) of the convolution that writes its features."""
        stages = [*self.encoders, *(self.decoders[node.name] for node in self.nodes)]
        return [[m.weight for m in stage.modules() if isinstance(m, nn.Conv2d)][-1] for stage in stages]

    @staticmethod
    def cost(spec: UNetSpec, task: Task) -> Cost:
        """Returns parameters, and MACs for one padded image of the task, added up part by part as they are built."""
        widths, kernels, pixels = spec.widths, spec.kernels, _pixels(spec, task)
        gate, fusion = GATES[spec.gate], FUSIONS[spec.fusion]
        return cost.total(
            cost.conv(task.channels, widths[0], kernels[0], pixels[0]),
            *(
                _stage_cost(spec.block, spec.norm, widths[level], widths[level], kernels[level], pixels[level])
                for level in range(spec.learned)
            ),
            *(
                Down.cost(widths[level - 1], widths[level], kernels[level], spec.resampling, pixels[level])
                for level in range(1, spec.learned)
            ),
            *(
                cost.total(
                    Up.cost(n.below, n.width, n.kernel, pixels[min(n.level + 1, spec.levels - 1)]),
                    gate.cost(n.width, pixels[n.level]),
                    fusion.cost(n.width, pixels[n.level]),
                    _stage_cost(
                        spec.block,
                        spec.norm,
                        fusion.channels(n.width, n.skips),
                        n.width,
                        n.kernel,
                        pixels[n.level],
                        spec.extra_blocks,
                    ),
                )
                for n in spec.nodes
            ),
            cost.conv(widths[0], task.channels, 1, pixels[0]) if spec.tasks != "classify" else cost.NOTHING,
            Head.cost(_attached(spec), task.classes, spec.head_hidden, spec.head_width)
            if spec.tasks != "denoise" and task.classifies
            else cost.NOTHING,
        )


class Columns(nn.Module):
    """Two U-Nets side by side, one for each task, which exchange features after each stage that both have.

    With a head at the bottleneck the classifying column is an encoder. Without sharing these are two single-task
    networks.
    """

    tasks = ("denoise", "classify")
    capturable = True

    def __init__(self, spec: UNetSpec, task: Task) -> None:
        super().__init__()
        exchange = SHARINGS[spec.sharing]
        widths = [spec.rows[level] for level in spec.exchanges]
        self.denoising, self.classifying = (UNet(column, task) for column in _columns(spec))
        self.exchanges = nn.ModuleList(exchange(width, spec.nddr_alpha) for width in widths)
        self.gathers = nn.ModuleList(_gather(spec)(widths) for _ in self.columns())

    def columns(self) -> tuple[UNet, UNet]:
        return self.denoising, self.classifying

    def forward(self, noisy: Tensor) -> Outputs:
        runs = [column.run(noisy) for column in self.columns()]
        states = [next(run) for run in runs]
        shared: list[list[Tensor]] = []
        for exchange in self.exchanges:
            if shared:
                states = [run.send(state) for run, state in zip(runs, shared[-1], strict=True)]
            shared.append(exchange(states))
        states = [gather(states) for gather, states in zip(self.gathers, zip(*shared, strict=True), strict=True)]
        (denoised, _), (_, logits) = (_to_the_end(run, state) for run, state in zip(runs, states, strict=True))
        return denoised, logits

    @property
    def reach(self) -> int | None:
        """As in `UNet`, because the columns have the same stages; None with a shortcut, which looks further."""
        return None if isinstance(self.gathers[0], Shortcut) else reach(self.denoising.spec)

    @property
    def reduction(self) -> int:
        """As in `UNet`."""
        return self.denoising.reduction

    @property
    def evidence_head(self) -> Head | None:
        """As in `UNet`, of the classifying column."""
        return self.classifying.evidence_head

    def gates(self) -> list[Tensor]:
        """Returns the learned skip gates of the denoising column, then of the classifying one, each shallow first."""
        return [gate for column in self.columns() for gate in column.gates()]

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Returns ``sharing``, the parameters of the layers between the columns, and ``base``, all others."""
        sharing = list(self.exchanges.parameters())
        base = (*self.columns(), self.gathers)
        return {"base": [p for module in base for p in module.parameters()], "sharing": sharing}

    def penalty(self) -> Tensor | None:
        """Returns the penalty that the exchanges add to the loss; None for none."""
        stages = zip(self.exchanges, *(column.writers() for column in self.columns()), strict=False)
        penalties = [each.penalty(weights) for each, *weights in stages if isinstance(each, Exchange)]
        found = [penalty for penalty in penalties if penalty is not None]
        return torch.stack(found).sum() if found else None

    @staticmethod
    def cost(spec: UNetSpec, task: Task) -> Cost:
        """Returns the cost of both columns and of the layers between them (see `UNet.cost`)."""
        exchange, pixels = SHARINGS[spec.sharing], _pixels(spec, task)
        stages = [(spec.rows[level], pixels[level]) for level in spec.exchanges]
        widths = [width for width, _ in stages]
        return cost.total(
            *(UNet.cost(column, task) for column in _columns(spec)),
            *(exchange.cost(*stage) for stage in stages),
            *(_gather(spec).cost(widths, pixels[spec.exchanges[-1]]) for _ in range(2)),
        )


def reach(spec: UNetSpec) -> int | None:
    """Computes `UNet.reach`. Norms over an image, pooled gates and fusions, and NAF's channel attention have no
    reach."""
    if GATES[spec.gate].pools or FUSIONS[spec.fusion].pools:
        return None
    if BLOCKS[spec.block].pools or EXTRA[spec.block].pools or spec.norm in POOLING_NORMS:
        return None
    scales = [1 if spec.resampling == "none" else 2**level for level in range(spec.levels + 1)]
    radii = [kernel // 2 for kernel in (*spec.kernels, 0)]
    stages = [2 * radii[level] * scales[level] for level in range(spec.levels)]
    downs = [(radii[level] + 1) * scales[level] for level in range(1, spec.levels)]
    nodes = [
        (radii[n.level + 1] + 1) * scales[n.level + 1] + stages[n.level] * (1 + spec.extra_blocks) for n in spec.nodes
    ]
    return radii[0] + sum(stages) + sum(downs) + sum(nodes)


def _columns(spec: UNetSpec) -> tuple[UNetSpec, UNetSpec]:
    return spec.column("denoise"), spec.column("classify")


def _to_the_end(run: Generator[Tensor, Tensor, Outputs], state: Tensor) -> Outputs:
    """Sends `state` into a run and lets every later stage keep its own output."""
    while True:
        try:
            state = run.send(state)
        except StopIteration as end:
            outputs: Outputs = end.value
            return outputs


def _stage(spec: UNetSpec, inputs: int, width: int, kernel: int, extra: int = 0) -> nn.Module:
    block = BLOCKS[spec.block](inputs, width, kernel, spec.norm)
    if not extra:
        return block
    return nn.Sequential(block, *(EXTRA[spec.block](width, width, kernel, spec.norm) for _ in range(extra)))


@lru_cache(maxsize=cost.SHAPES)
def _stage_cost(block: Block, norm: Norm, inputs: int, width: int, kernel: int, pixels: int, extra: int = 0) -> Cost:
    more = EXTRA[block].cost(width, width, kernel, norm, pixels)
    return cost.total(BLOCKS[block].cost(inputs, width, kernel, norm, pixels), *[more] * extra)


def _head(spec: UNetSpec, task: Task) -> Head:
    return Head(_attached(spec), task.classes, spec.head_hidden, spec.head_width, spec.head_dropout, spec.head_norm)


def _attached(spec: UNetSpec) -> int:
    """Returns the number of channels that the head reads."""
    return {"bottleneck": spec.rows[-1], "decoder": spec.rows[0], "all": sum(spec.rows)}[spec.head_attach]


def _gather(spec: UNetSpec) -> type[Gather]:
    """Returns the layer that joins all stages; the base class where there is one stage, or no shortcut is wanted."""
    return SHARINGS[spec.sharing].gather if spec.nddr_shortcut and len(spec.exchanges) > 1 else Gather


def _pixels(spec: UNetSpec, task: Task) -> list[int]:
    """Returns the pixels of each level, for one padded image."""
    height, width = (side + -side % spec.reduction for side in (task.height, task.width))
    shrink = 1 if spec.resampling == "none" else 4
    return [height * width // shrink**level for level in range(spec.levels)]
