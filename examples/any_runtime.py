"""A denoiser without `gradresnet`: its graph, ONNX Runtime, NumPy and Pillow.

    python examples/any_runtime.py models/zoo/photo examples/noisy/lake.png 25 clean.png

What the program does around the graph is not in here: docs/deploying.md names it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

bundle, noisy, level, clean = sys.argv[1:]
bundle = Path(bundle)
spec = json.loads((bundle / "spec.json").read_text())
# If denoiser.onnx names its weights, they are read from model.safetensors beside it.
session = onnxruntime.InferenceSession(bundle / "denoiser.onnx", providers=["CPUExecutionProvider"])

pixels = np.asarray(Image.open(noisy).convert("RGB"), np.float32) / 255
height, width, _ = pixels.shape
# Height and width are multiples of the network's stride, which is a power of two; 64 is one of every model's.
pixels = np.pad(pixels, [(0, -height % 64), (0, -width % 64), (0, 0)], mode="reflect")

inputs = {
    "noisy": pixels.transpose(2, 0, 1)[None],
    # The standard deviation of the noise for samples from 0 to 1; files have 0 to 255.
    "sigma": np.float32([float(level) / 255]),
    # Zeros denoise by log p(y), a one for a class by log p(y | class).
    "class_weights": np.zeros((1, len(spec["classes"])), np.float32),
}
# A model has those of them that it needs.
inputs = {name.name: inputs[name.name] for name in session.get_inputs()}
(denoised,) = session.run(["denoised"], inputs)

denoised = denoised[0, :, :height, :width].transpose(1, 2, 0)
Image.fromarray((denoised.clip(0, 1) * 255).round().astype(np.uint8)).save(clean)
