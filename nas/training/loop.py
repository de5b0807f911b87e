"""The training loop on one page: it trains a network by a recipe on data on the device, one epoch at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nas.errors import ConfigError
from nas.protocols import Abilities
from nas.training.balancing import BALANCES, Balance
from nas.training.batches import NoisyBatch, TrainingData
from nas.training.captured import Captured, Work, graphs_on
from nas.training.optimizers import Optimizer
from nas.training.stability import PROBES
from nas.types import ProbeCurve, Recipe, Task

WARM_UP = 0.05
"""The share of the run over which the learning rate rises from zero; it then decays to zero as a cosine."""

BLOWN_UP = 100.0
"""A run has diverged when the mean loss of an epoch exceeds this many times the untrained network's."""

T = TypeVar("T", Tensor, float)


class Diverged(Exception):  # noqa: N818 - an outcome of a trial, not an error
    """The loss became NaN or infinite, or blew up. The message says at which epoch and how."""


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Returns weights of classes (K,) that make their images count alike, 1 in the mean over images.

    They are scikit-learn's ``balanced`` weights, ``N / (classes * images of the class)``, among the classes that have
    images; the others have the weight 0.
    """
    counts = torch.bincount(labels, minlength=classes)
    return torch.where(counts > 0, len(labels) / (counts * (counts > 0).sum()), 0.0).float()


class Training:
    """One run of a recipe, from fresh weights to the full budget, one epoch at a time.

    The loss is ``L_denoise + lambda * L_classify`` (AddUNet). L_denoise is the MSE over the noisy input's MSE, so that
    it starts near 1 at every noise level and lambda means the same everywhere; L_classify is the cross-entropy in nats.
    Where no clean images are known, both errors are those of `nas.training.held_out`. Recipes may balance the two
    losses otherwise, weigh classes and smooth labels, and networks may add a penalty. The learning rate has a linear
    warm-up and a cosine decay over the full budget. Losses stay on the device within an epoch. The probes are losses
    without smoothing and class weights, so that the stability of candidates compares. A GPU is given steps and probes
    as a whole (`nas.training.captured`), and is waited for at the end of an epoch only.

    Args:
        network: images -> (denoised, logits); it is moved to the data's device.
        task: decides which of the outputs are trained.
        recipe: the schedule always spans ``recipe.epochs``.
        data: see `TrainingData`.
        seed: seed of data order and training noise, which have a generator of their own.
        precision: ``fp32`` or ``bf16`` (autocast).
        capture: whether a GPU is given steps as a whole where that can be.
    """

    warm_up = WARM_UP
    accumulate = 1
    """The number of batches whose gradients make one step."""

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        recipe: Recipe,
        data: TrainingData,
        *,
        seed: int,
        precision: str = "fp32",
        capture: bool = True,
    ) -> None:
        self.device = data.device
        self.network = network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._parameters = list(self.network.parameters())  # a step does not look for them again
        self.task, self.recipe, self.data = task, recipe, data
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.bf16 = precision == "bf16"
        self.abilities = Abilities.of(self.network)
        self.tasks = [name for name in self.abilities.tasks if name == "denoise" or task.classifies]
        balance = BALANCES[recipe.balancing] if len(self.tasks) > 1 else Balance
        self.balance = balance(recipe).to(self.device)
        self.class_weights: Tensor | None = None
        if recipe.class_weights != "none" and data.labels is not None:
            self.class_weights = balanced_weights(data.labels, task.classes)
        self.optimizer = Optimizer(
            recipe.optimizer,
            self._parameter_groups(),
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
        )
        capturable = capture and self.abilities.capturable and self.balance.capturable
        graphs = graphs_on(self.device) if capturable else None
        self._captured_steps = None if graphs is None else Captured(graphs)
        self._captured_probes = None if graphs is None else Captured(graphs)
        self.epoch = 0
        self.step = 0
        self.images_per_step = recipe.batch_size * self.accumulate
        self.steps_per_epoch = math.ceil(len(data) / self.images_per_step)
        self.total_steps = recipe.epochs * self.steps_per_epoch
        probes = min(PROBES, self.total_steps)
        self._probe_at = {round(i * self.total_steps / probes) for i in range(probes + 1)}
        self._probes: list[tuple[int, Tensor, Tensor]] = []
        # The epoch under way has an order of the images, the number of images done, and the sums of their losses.
        self._order: Tensor | None = None
        self._done = 0
        self._sums = torch.zeros(2, device=self.device)
        self._probe()
        self._initial_loss = float(self._total(*self._probes[0][1:]))

    def run_epoch(self, after_step: Callable[[], None] = lambda: None) -> tuple[float, float | None]:
        """Trains one epoch, or the rest of it.

        Args:
            after_step: called between steps, when `state` may be taken.

        Returns:
            The mean denoising loss (in trivial losses), and the mean cross-entropy (in nats) or None without classes.

        Raises:
            Diverged: the epoch's mean loss is not finite or has blown up.
        """
        if self._order is None:
            self._order = self._drawn_order()
            self._done, self._sums = 0, torch.zeros(2, device=self.device)
        for captured in (self._captured_steps, self._captured_probes):
            if captured is not None:
                captured.renew(self._moved)
        for start in range(self._done, len(self._order), self.images_per_step):
            rows = self._order[start : start + self.images_per_step]
            losses = self._learn(rows)
            self.step += 1
            self._done += len(rows)
            self._sums += losses * len(rows)
            if self.step in self._probe_at:
                self._probe()
            after_step()
        self.epoch += 1
        denoise, classify = (self._sums / len(self._order)).tolist()
        self._order = None
        loss = self._total(denoise, classify)
        if not math.isfinite(loss):
            raise Diverged(f"loss is {loss} in epoch {self.epoch}")
        if loss > BLOWN_UP * max(self._initial_loss, 1.0):
            raise Diverged(f"loss rose from {self._initial_loss:.3g} to {loss:.3g} in epoch {self.epoch}")
        return denoise, classify if self.task.classifies else None

    def probe_curve(self) -> ProbeCurve:
        """Returns the probe losses so far, over their trivial losses: the noisy input's MSE and ln(classes)."""
        steps = tuple(step for step, _, _ in self._probes)
        denoise, classify = torch.stack([torch.stack(losses) for _, *losses in self._probes]).T.tolist()
        trivial = math.log(max(self.task.classes, 2))
        return ProbeCurve(
            steps=steps,
            denoise=tuple(denoise) if self.task.denoises and "denoise" in self.tasks else (),
            classify=tuple(c / trivial for c in classify) if "classify" in self.tasks else (),
        )

    def state(self) -> dict[str, Any]:
        """Returns everything that decides how the run goes on, as tensors and plain values for `load_state`.

        This includes the states of torch's global generators, which feed dropout.
        """
        cuda = self.device.type == "cuda"
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "balance": self.balance.state_dict(),
            "generator": self.generator.get_state(),
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if cuda else None,
            "epoch": self.epoch,
            "step": self.step,
            "order": self._order,
            "done": self._done,
            "sums": self._sums,
            "probes": self._probes,
            "initial_loss": self._initial_loss,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continues from a `state`. On the CPU the run then ends bit for bit as if it had never stopped.

        The state may come from another kind of device. Generators of that kind mean nothing here, so they begin anew.
        """
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.balance.load_state_dict(state["balance"])
        torch.set_rng_state(state["rng"])
        cuda = self.device.type == "cuda"
        if (state["cuda_rng"] is not None) == cuda:
            self.generator.set_state(state["generator"])
            if cuda:
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.epoch, self.step, self._done = state["epoch"], state["step"], state["done"]
        self._order = None if state["order"] is None else state["order"].to(self.device)
        self._sums, self._initial_loss = state["sums"].to(self.device), state["initial_loss"]
        self._probes = [
            (step, denoise.to(self.device), classify.to(self.device)) for step, denoise, classify in state["probes"]
        ]

    def _drawn_order(self) -> Tensor:
        """Draws the images of one epoch, as the recipe has them."""
        labels = self.data.labels
        if self.recipe.class_weights != "sampled" or self.class_weights is None or labels is None:
            return self.data.order(self.generator)
        chances = self.class_weights[labels]
        return torch.multinomial(chances, len(labels), replacement=True, generator=self.generator)

    def _learn(self, rows: Tensor) -> Tensor:
        """Makes one step with images. Returns their mean losses (2,): denoising, classification."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule() * group["rate"]
        return self._do(self._captured_steps, self._learn_from, self._batches(rows))

    def _batches(self, rows: Tensor) -> Iterator[NoisyBatch]:
        """Draws the batches of one step, each when it is asked for."""
        for part in rows.tensor_split(min(self.accumulate, len(rows))):
            yield self.data.batch(part, self.generator)

    def _do(self, captured: Captured | None, work: Work, batches: Iterable[NoisyBatch]) -> Tensor:
        """Does some work, by a graph of it where there is one. Returns its losses (2,)."""
        if captured is None:
            return work(batches, None)
        return captured(work, batches, [group["lr"] for group in self.optimizer.param_groups], self._moved)

    def _moved(self) -> dict[str, list[Tensor]]:
        """Returns every tensor that a step changes, by kind."""
        found = {"parameters": [*self._parameters, *self.balance.parameters()]}
        named = [*self.network.named_buffers(), *self.balance.named_buffers()]
        named += [each for state in self.optimizer.state.values() for each in state.items()]
        for name, tensor in named:
            found.setdefault(name.rpartition(".")[2], []).append(tensor)
        return found

    def _learn_from(self, batches: Iterable[NoisyBatch], rates: Sequence[Tensor] | None) -> Tensor:
        """Moves the weights by the gradients of batches. Returns the mean losses (2,)."""
        self.optimizer.zero_grad()
        losses = self._backward(batches)
        self.optimizer.step(rates)
        return losses

    def _backward(self, batches: Iterable[NoisyBatch]) -> Tensor:
        """Adds the gradients of a step's batches. Returns the mean losses (2,): denoising, classification."""
        total, count = torch.zeros(2, device=self.device), 0
        for batch in batches:
            count += 1
            denoise, logits = self._outputs(batch)
            losses = denoise, self._classification_loss(logits, batch.labels)
            self.balance.backward(*losses, self.abilities.penalty(), self._parameters)
            total += torch.stack(losses).detach()
        if count > 1:
            for parameter in (*self._parameters, *self.balance.parameters()):
                if parameter.grad is not None:
                    parameter.grad /= count
        return total / count

    def _outputs(self, batch: NoisyBatch) -> tuple[Tensor, Tensor]:
        """Returns the denoising loss () and the logits (N, K)."""
        noisy, clean, labels, held_out = batch
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            denoised, logits = self.network(noisy.contiguous(memory_format=torch.channels_last))
        # Shapes that merely broadcast would train without an error, and learn something else.
        if denoised.shape != clean.shape or (labels is not None and logits.shape != (len(clean), self.task.classes)):
            raise ConfigError(
                f"network {type(self.network).__name__}: from images {tuple(noisy.shape)} it makes "
                f"{tuple(denoised.shape)} and {tuple(logits.shape)}, must make {tuple(clean.shape)} and "
                f"{(len(clean), self.task.classes)}"
            )
        error = F.mse_loss(denoised.float(), clean) if held_out is None else batch.error(denoised).mean()
        return error / self.data.trivial, logits.float()

    def _classification_loss(self, logits: Tensor, labels: Tensor | None) -> Tensor:
        """Returns the cross-entropy () that is trained."""
        if labels is None:
            return logits.new_zeros(())
        smoothing = self.recipe.label_smoothing
        if self.recipe.class_weights != "balanced" or self.class_weights is None:
            return F.cross_entropy(logits, labels, label_smoothing=smoothing)
        # The weights are 1 in the mean over the training images, and not in that over each batch: a batch without an
        # image of a small class would otherwise pull as strongly as one with such an image.
        each = F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="none")
        return (each * self.class_weights[labels]).mean()

    def _total(self, denoise: T, classify: T) -> T:
        return denoise + self.recipe.classification_weight * classify

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the optimiser's groups; `rate` is a group's learning rate in units of the recipe's."""
        rates = {"sharing": self.recipe.sharing_rate}
        named = self.abilities.parameter_groups().items()
        groups = [{"params": list(group), "rate": rates.get(name, 1.0)} for name, group in named if group]
        own = list(self.balance.parameters())
        return [*groups, *([{"params": own, "rate": 1.0, "weight_decay": 0.0}] if own else [])]

    def _schedule(self) -> float:
        """Returns the share of the peak learning rate at the current step."""
        warm_up = max(1.0, self.warm_up * self.total_steps)
        if self.step < warm_up:
            return (self.step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (self.step - warm_up) / max(1.0, self.total_steps - warm_up)))

    def _probe(self) -> None:
        denoise, classify = self._do(self._captured_probes, self._judged, [self.data.probe])
        self._probes.append((self.step, denoise, classify))

    def _judged(self, batches: Iterable[NoisyBatch], rates: Sequence[Tensor] | None) -> Tensor:
        """Returns the losses (2,) of the probe batch as the network is, and changes nothing."""
        (batch,) = batches
        self.network.eval()
        with torch.no_grad():
            denoise, logits = self._outputs(batch)
            classify = logits.new_zeros(())
            if batch.labels is not None:  # in the same way for every recipe, so that stability compares
                classify = F.cross_entropy(logits, batch.labels)
        self.network.train()
        return torch.stack([denoise, classify])
