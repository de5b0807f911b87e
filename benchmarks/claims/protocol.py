"""The claims, the networks and seeds that are trained for them, and the rules by which they are decided.

The report prints `RULES` and `CLAIMS` as they stand here. They were written before the first full run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.claims import networks
from benchmarks.claims.networks import NETWORKS, SKIPS
from benchmarks.lib import runs
from benchmarks.lib.runs import Job, Setting

RULES = """The rules were written before the first full run.

Every comparison in a setting (data and noise) is a cell with two one-sided paired t tests over seeds: *for*
(the true mean lies above the claimed bound) and *against* (it lies below the bound at which the claim is
worthless). All tests of a claim are corrected together by Holm's method and held against 0.025 each. A
claim of being better has the bounds 0 and the margin, so that a real but negligible advantage counts
against it; a claim of losing at most a margin has minus the margin as both bounds. Margins: 0.1 dB, 1 point of
accuracy, 0.02 of stability, 0.02 of a gate. A part holds when more than half of its cells are for and none
against; it does not hold when at least half are against; else it is undecided. A claim holds when all its
parts hold, and does not hold when one of them does not."""

CLAIMS: Mapping[str, str] = {
    "a": """Gated additive skips train more stably than concatenated ones. Four networks that differ in the skip
only, on AddUNet's trunk: concatenated, added, scalar gate (AddUNet itself), channel gate. Parts: the
stability score of the scalar gate and of the channel gate is higher than that of concatenation; the
spread over seeds of final PSNR and accuracy is smaller (Brown and Forsythe's test, on digits only,
where there are 20 seeds). The ungated sum is shown beside them and decides nothing.""",
    "b": """From denoising alone to the joint task AddUNet's gates move, shallow up for reconstruction and deep up
for classification. Parts: the mean gate of the shallow half rises; that of the deep half rises (of three
skips, the first and the last). Twice on digits: with the head at the bottleneck, which no gate leads to,
so that classification moves gates only through what it makes of the encoder, and at the end of the
decoder, which all gates lead to. The weaker reading, that weight is redistributed towards the deep half,
is shown and decides nothing.""",
    "c": """PSNR holds when the head shrinks from one hidden layer of 256 units to none, on one and the same trunk:
it loses at most 0.1 dB.""",
    "d": """AddUNet's parameters do not grow with skips, concatenation's do. Exact counts, no training: with every
skip AddUNet gains its gate, one scalar, and no weight at any width and depth tried; concatenation gains
at least width squared.""",
    "e": """NDDR beats sluice, cross-stitch, hard sharing and single-task networks; one part for each rival, in PSNR
and in accuracy. The single-task networks have half of the budget each, as the columns of NDDR do. All
train by one recipe. Sluice, cross-stitch and NDDR under the recipe of their papers (SGD, the layers
between columns at 100 times the rate) are shown on digits and decide nothing, since then two of the four
comparisons would be of SGD with AdamW.""",
    "f": """A Multi-ResNet with the encoder's parameters returned to the decoder matches its residual U-Net (it
loses at most 0.1 dB and 1 point), and one without loses at most little (0.3 dB and 2 points, with
fewer parameters: the width of the residual U-Net, the encoder's parameters gone).""",
}
"""The text of each claim and the comparisons by which it is decided, by letter."""

FIRST_SEED = 2
"""Seeds 0 and 1 were used in pilot runs before the rules were settled, and are left out."""

NOISES = ("gaussian:25", "gaussian:50")

MARGINS = {"psnr": 0.1, "accuracy": 1.0, "stability": 0.02}
"""Differences in dB, in points, and of the score, below which an advantage is negligible."""
LITTLE = {"psnr": 0.3, "accuracy": 2.0}
"""The losses that claim f calls little."""
GATE_MARGIN = 0.02
"""The rise of a mean gate below which it is negligible."""
BARELY = 60.0
"""Accuracy in percent below which a network counts as one that has hardly learned to classify."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The runs of the benchmark: its settings, and the number of seeds of a network in each of them.

    Attributes:
        settings: data and noise of the runs.
        many: the number of seeds of claim a's networks, by data source.
        fewest: the number of seeds of all other networks, by data source.
        quick: whether this is a check that everything runs; its verdicts mean nothing, and the report says so.
    """

    settings: tuple[Setting, ...]
    many: Mapping[str, int]
    fewest: Mapping[str, int]
    quick: bool = False

    def seeds(self, network: str, setting: Setting) -> range:
        """Returns the seeds of a network in a setting; none where it is not trained."""
        if setting.data not in NETWORKS[network].data:
            return range(0)
        return self._first((self.many if network in SKIPS else self.fewest)[setting.data])

    def jobs(self) -> list[Job]:
        """Returns all runs, setting by setting and seed by seed, so that the runs before an interruption are paired."""
        return [
            self.job(name, setting, seed)
            for setting in self.settings
            for seed in self._first(max(self.many[setting.data], self.fewest[setting.data]))
            for name in NETWORKS
            if seed in self.seeds(name, setting)
        ]

    @staticmethod
    def _first(count: int) -> range:
        return range(FIRST_SEED, FIRST_SEED + count)

    def job(self, network: str, setting: Setting, seed: int) -> Job:
        """Returns one run."""
        candidate = networks.candidate(network, runs.task_of(setting), setting)
        return Job(setting=setting, candidate=candidate, seed=seed)


def plan(*, quick: bool = False, only: str | None = None, root: Path | None = None) -> Plan:
    """Returns the full plan, the quick one, or the part of the full plan that is about one data source."""
    if quick:
        settings = tuple(Setting(data="digits", subset=300, noise=noise, epochs=3) for noise in NOISES)
        return Plan(settings=settings, many={"digits": 2}, fewest={"digits": 2}, quick=True)
    settings = (
        *(Setting(data="digits", subset=None, noise=noise, epochs=27) for noise in NOISES),
        *(Setting(data="fashion-mnist", subset=6000, noise=noise, epochs=9, root=root) for noise in NOISES),
    )
    chosen = tuple(s for s in settings if only is None or s.data.startswith(only))
    return Plan(settings=chosen, many={"digits": 20, "fashion-mnist": 5}, fewest={"digits": 8, "fashion-mnist": 5})
