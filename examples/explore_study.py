"""A study in Python: the front as a data frame, what matters, a figure, the report.

python examples/explore_study.py digits-gaussian-50 [runs/studies.db]
"""

import sys

from studies import open_study

name = sys.argv[1]
storage = sys.argv[2] if len(sys.argv) > 2 else None

with open_study(name, storage) as study:
    objectives = [objective.name for objective in study.history.config.objectives]

    print(study.front()[[*objectives, "params", "knee"]])
    print(study.choose(psnr=2).reason)

    # Mean of each objective by the way skips are fused: an ordinary data frame.
    trials = study.trials()
    complete = trials[trials["reason"] == ""]
    print(complete.groupby("fusion")[objectives].mean())

    # How far the loss came in the first epoch, and at the end.
    epochs = study.epochs().groupby("number")["denoise_loss"]
    print(epochs.agg(["first", "last"]).tail())

    study.figure("front-psnr-accuracy").write_html("front.html")
    print("written:", "front.html,", study.report("report.html"))
