"""The tables and the picture of made-up cells."""

from __future__ import annotations

from typing import Any

from benchmarks.proof.cells import cells
from benchmarks.proof.pages import details, picture, summary

CELLS = cells(None, None)


def network(name: str, kind: str, recipe: str, mean_psnr: float, mean_accuracy: float, **more: Any) -> dict[str, Any]:
    """A network under three seeds: its figures are a little below, at, and a little above the given ones."""
    made = {
        "name": name,
        "kind": kind,
        "recipe": recipe,
        "params": 75_284,
        "macs": 921_272,
        "networks": [{"spec": {}, "recipe": {}}],
        "psnr": [mean_psnr - 0.01, mean_psnr, mean_psnr + 0.01],
        "accuracy": [mean_accuracy - 0.1, mean_accuracy, mean_accuracy + 0.1],
    }
    return made | more


def record(name: str = "digits-gaussian-50-sixth", unet: float = 20.0) -> dict[str, Any]:
    cell = next(each for each in CELLS if each.name == name)
    pair = [{"spec": {"tasks": task}, "recipe": {}} for task in ("denoise", "classify")]
    return {
        "cell": name,
        "share": cell.share,
        "macs": cell.macs,
        "data": "digits",
        "noise": "gaussian:50",
        "epochs": 27,
        "test_images": 359,
        "searched_minutes": 20.0,
        "trials": 63,
        "core_minutes": 38.0,
        "trained_minutes": 24.2,
        "machine": "a processor, 2 cores",
        "over": ["nddr"],
        "networks": [
            network("trial 9: knee", "knee", "found", 20.8, 97.0),
            network("trial 4: best psnr", "end", "found", 21.0, 96.0),
            network("unet", "reference", "own", unet, 96.0),
            network("single-task-denoise", "reference", "own", 20.6, 10.0, networks=pair[:1]),
            network("unet", "reference", "found", 20.8, 97.0, psnr=[20.81, 20.8, 20.79], accuracy=[96.9, 97.2, 96.9]),
            network("a + b", "pair", "own", 20.5, 95.0, networks=pair),
            network("a + b", "pair", "found", 20.5, 95.0, networks=pair, psnr=[None] * 3, accuracy=[None] * 3),
        ],
    }


def test_a_cell_has_its_found_networks_and_every_rival() -> None:
    lines = details(record())
    assert lines[0] == "### digits-gaussian-50-sixth: at most 1,066,667 MACs"
    assert lines[2].startswith("digits, gaussian:50, 27 epochs. The search took 20.0 minutes and trained 63 candidates")
    assert "Holm's correction for 10. Over the limit at every width: nddr." in lines[2]
    rows = [line for line in lines if line.startswith("| ")][1:]
    # t(0.975, 2) = 4.303, so half an interval is 4.303 * 0.01 / sqrt(3) = 0.025 dB and 0.25 points.
    assert rows[0] == "| **trial 9: knee** | found | 75,284 | 921,272 | 20.80 ± 0.02 | 97.00 ± 0.25 | | | |"
    assert [row.split(" | ")[0] for row in rows[2:]] == [
        "| single-task-denoise",
        "| a + b",
        "| unet",
        "| unet",
        "| a + b",
    ]
    assert rows[4] == (
        "| unet | its own | 75,284 | 921,272 | 20.00 ± 0.02 | 96.00 ± 0.25 | +0.80 (+0.80 to +0.80) "
        "| +1.00 (+1.00 to +1.00) | better |"
    )
    assert rows[5].endswith("| undecided |")
    assert rows[6] == "| a + b | found | 75,284 | 921,272 | diverged | diverged | - | - | undecided |"
    assert lines[-2:] == [
        "trial 9: knee: better than 3 of 5, undecided 2.",
        "trial 4: best psnr: better than 3 of 5, mixed 1, undecided 1.",
    ]


def test_the_summary_leaves_no_cell_out() -> None:
    finished = {each["cell"]: each for each in (record(), record("digits-gaussian-50-whole", unet=20.9))}
    lines = summary(CELLS, finished)
    rows = [line for line in lines if line.startswith("| digits")]
    assert rows[0] == (
        "| digits-gaussian-50-sixth | trial 9: knee | 921,272 | 20.80 ± 0.02 | 97.00 ± 0.25 | better than 2 of 2 "
        "| better than 0 of 1, undecided 1 | better than 1 of 2, undecided 1 |"
    )
    assert rows[1].startswith(
        "| digits-gaussian-50-sixth | trial 4: best psnr | 921,272 | 21.00 ± 0.02 | 96.00 ± 0.25 |"
    )
    assert "| better than 1 of 2, mixed 1 |" in rows[2]
    assert (
        "Limit sixth: the knee is better than every reference under its own recipe in 1, and under the knee's recipe "
        "as well in 0, of 1 finished cells (8 in all)." in lines
    )
    assert "Limit whole: the knee is better than every reference under its own recipe in 0, and" in "\n".join(lines)
    assert "Limit half: " not in "\n".join(lines), "none of its cells is finished"
    assert lines[-1].startswith("22 of 24 cells are missing: digits-gaussian-25-sixth, fashion-gaussian-25-sixth, ")
    assert summary(CELLS[:0], {})[-1] == "All cells are there."


def test_the_picture_has_every_network_in_the_panels_of_its_tasks() -> None:
    figure = picture([record(), record("digits-gaussian-50-whole"), record("fashion-gaussian-25-half")])
    points = {(each.name, each.yaxis): len(each.x) for each in figure.data}
    assert points["found, knee", "y"] == points["found, knee", "y2"] == 2, "both limits of digits are in one row"
    assert points["known, own recipe", "y"] == 6
    assert points["known, own recipe", "y2"] == 4, "a network that denoises alone has no accuracy to show"
    assert points["known, own recipe", "y3"] == 3
    assert points["known, found recipe", "y"] == 2, "a pair that diverged is not there"
    assert sum(each.showlegend for each in figure.data) == 4
    rows = [figure.layout[axis].title.text for axis in ("yaxis", "yaxis3")]
    assert rows == ["digits, gaussian:50<br>psnr (dB)", "fashion, gaussian:25<br>psnr (dB)"]
