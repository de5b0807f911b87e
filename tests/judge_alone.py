"""What someone without skipnas finds: ``python judge_alone.py onnx|torch PROGRAM ARRAYS.npz`` prints PSNR and accuracy.

Nothing of the project is imported here; NumPy and the runtime have to do.
"""

import json
import sys

import numpy as np

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
found = {"psnr": -10 * np.log10(errors).mean(), "accuracy": 100 * (logits.argmax(1) == labels).mean()}
assert not {"nas", "studies", "search_spaces"} & set(sys.modules)
print(json.dumps(found))
