"""What someone without skipnas finds: ``python judge_alone.py onnx|torch PROGRAM ARRAYS.npz`` prints PSNR and what
is measured of classes.

Nothing of the project is imported here; NumPy, scikit-learn and the runtime have to do.
"""

import json
import sys

import numpy as np
from scipy.special import softmax
from sklearn.metrics import balanced_accuracy_score, f1_score, roc_auc_score

runtime, program, arrays = sys.argv[1:]
data = np.load(arrays)
noisy, clean, labels = data["noisy"], data["clean"], data["labels"]
batches = np.array_split(noisy, len(noisy) // 100)
if runtime == "onnx":
    import onnxruntime

    session = onnxruntime.InferenceSession(program, providers=["CPUExecutionProvider"])
    outputs = [
        session.run(["denoised", "logits"], {"noisy": part}) for part in np.array_split(noisy, len(noisy) // 100)
    ]
else:
    import torch

    network = torch.export.load(program).module()
    with torch.inference_mode():
        outputs = [[output.numpy() for output in network(torch.from_numpy(batch))] for batch in batches]
denoised, logits = (np.concatenate(column) for column in zip(*outputs, strict=True))
errors = ((denoised.clip(0, 1) - clean).astype(np.float64) ** 2).mean(axis=(1, 2, 3))
answers = logits.argmax(1)
found = {
    "psnr": -10 * np.log10(errors).mean(),
    "accuracy": 100 * (answers == labels).mean(),
    "balanced_accuracy": 100 * balanced_accuracy_score(labels, answers),
    "macro_f1": f1_score(labels, answers, average="macro"),
    "auc": roc_auc_score(labels, softmax(logits.astype(np.float64), axis=1), multi_class="ovr"),
}
assert not {"nas", "studies", "search_spaces"} & set(sys.modules)
print(json.dumps(found))
