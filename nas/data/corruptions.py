"""What images may suffer besides the noise that a network was trained on: kinds of corruption, each at five strengths.

The kinds are those of ImageNet-C (Hendrycks and Dietterich 2019, arXiv 1903.12261) that need nothing but the image, at
strengths of our own, which also suit denoisers and small images. Each is a noise by name (see `nas.data.noise`), so the
same words train on it and judge under it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

CLEAN = "clean"
"""The kind of strength 0: images as they are."""

CORRUPTIONS: Mapping[str, Sequence[str]] = {
    "gaussian noise": ("gaussian:10", "gaussian:25", "gaussian:50", "gaussian:75", "gaussian:100"),
    "shot noise": ("poisson:100", "poisson:50", "poisson:20", "poisson:10", "poisson:5"),
    "speckle": ("speckle:0.1", "speckle:0.2", "speckle:0.3", "speckle:0.45", "speckle:0.6"),
    "salt and pepper": ("saltpepper:0.02", "saltpepper:0.05", "saltpepper:0.1", "saltpepper:0.2", "saltpepper:0.3"),
    "JPEG": ("jpeg:80", "jpeg:60", "jpeg:40", "jpeg:20", "jpeg:10"),
    "blur": ("blur:0.5", "blur:0.8", "blur:1.2", "blur:1.8", "blur:2.5"),
    "contrast": ("contrast:0.8", "contrast:0.6", "contrast:0.4", "contrast:0.2", "contrast:0.1"),
    "darker": ("brightness:0.8", "brightness:0.6", "brightness:0.4", "brightness:0.2", "brightness:0.1"),
    "brighter": ("brightness:1.2", "brightness:1.5", "brightness:2", "brightness:3", "brightness:4"),
}
"""Kind -> noises by name, from mild to strong."""

SHOWN = ("psnr", "accuracy", "balanced_accuracy", "auc")
"""The metrics that tables and figures of corruptions show, where they apply."""


def levels_of_corruption() -> Iterator[tuple[str, int, str]]:
    """Yields kind, strength and noise by name of every level: clean images of strength 0, then each kind from 1 on."""
    yield CLEAN, 0, "none"
    for kind, levels in CORRUPTIONS.items():
        for strength, words in enumerate(levels, start=1):
            yield kind, strength, words
