#!/usr/bin/env python3
"""Times the denoiser beside what people would otherwise use, in one run, in turn.

    pip install torch onnx onnxscript onnxruntime numpy pillow bm3d opencv-python-headless safetensors
    python tests/peers.py speed models/zoo/photo --size 256 --batch 1 --threads 1
    python tests/peers.py quality models/zoo/photo CBSD68 --images 10
    python tests/peers.py profile models/zoo/photo
    python tests/peers.py mosaic CBSD68 mosaic.png
    python tests/peers.py grey CBSD68 grey

`speed`: the same weights as eager PyTorch autograd, through torch.compile, and as make_fx + torch.onnx.export
in ONNX Runtime, beside `gradresnet bench` on both engines. Each round runs all of them once; the figures are
medians over rounds, and CPU time over all of a process's threads, which other processes disturb less. With one thread,
others than ours are timed again with subnormal numbers flushed to zero, which some processors are slow at.

`quality`: dB and seconds of `gradresnet denoise`, BM3D and OpenCV's non-local means on the same 8-bit images. Ours is
a process for each image, with its start, and reads and writes files; theirs is called with the image in memory.

`profile`: ONNX Runtime's time in the denoiser graph by operator, on one thread.

`mosaic`: a large image of parts of photographs, to time tiles with.

`grey`: every fourth image of a folder, in grey.
"""

import argparse
import collections
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPSILON = 1e-5  # of the norms, as in models/src/architecture/mod.rs


def program():
    return os.environ.get("GRADRESNET", "target/release/gradresnet")


def parameters(bundle):
    """The parameters of a bundle, by their module path."""
    from safetensors.numpy import load_file

    return load_file(bundle / "model.safetensors")


def network(spec, weights):
    """log p(y) of images, and their logits or None, as a function of tensors."""
    import torch
    import torch.nn.functional as F

    a = spec["architecture"]["gradresnet"]
    assert (a["block"], a["norm"], a["activation"], a["biases"]) == ("residual", "group", "gelu", False)
    assert (a["stem"], a["side_connections"]) == ("cifar", "stem")

    def norm(x, path):
        return F.group_norm(x, x.shape[1] // a["group_size"], weights[path + ".weight"], None, EPSILON)

    def forward(y):
        x = F.gelu(F.conv2d((y - a["centre"]) * a["scale"], weights["stem.conv.weight"], padding=1))
        sides = [("side.stem.weight", x)]
        for stage, blocks in enumerate(a["blocks"]):
            for block in range(blocks):
                path = f"stages.{stage}.{block}"
                stride = 2 if stage > 0 and block == 0 else 1
                h = F.gelu(F.conv2d(x, weights[path + ".conv1.weight"], stride=stride, padding=1))
                h = norm(F.conv2d(h, weights[path + ".conv2.weight"], padding=1), path + ".norm")
                if stride == 2:
                    x = F.conv2d(x, weights[path + ".shortcut.conv.weight"], stride=2)
                    x = norm(x, path + ".shortcut.norm")
                x = x + h
            sides.append((f"side.stage{stage}.weight", x))
        pooled = [x.mean((2, 3))]
        pooled += [x.mean((2, 3)) @ weights[name].T for name, x in reversed(sides[:-1])]
        features = torch.cat(pooled, 1)
        log_p = -0.5 * y.shape[2] * y.shape[3] * (features @ weights["energy.weight"]) ** 2
        return log_p, features @ weights["head.weight"].T if spec["classes"] else None

    def denoise(y, sigma, class_weights):
        y = y.detach().requires_grad_(True)
        objective, logits = forward(y)
        if logits is not None:
            objective = objective + (class_weights * logits.log_softmax(1)).sum(1)
        (score,) = torch.autograd.grad(objective.sum(), y)
        return y.detach() + sigma[:, None, None, None] ** 2 * score

    return denoise


def clocked(function):
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return (time.perf_counter() - wall) * 1e3, (time.process_time() - cpu) * 1e3


def exported(denoise, inputs, threads):
    """make_fx traces forward and backward into one graph of ATen operators, which is exported. The exporter has
    no ONNX function for aten.convolution_backward and PyTorch no decomposition, so by themselves they fail; here
    they are given the rule that they lack: the transposed convolution."""
    import numpy as np
    import onnxruntime
    import torch
    from torch._decomp import core_aten_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    aten = torch.ops.aten

    def rule(grad, x, w, _, stride, padding, dilation, transposed, output_padding, groups, mask):
        reach = [(g - 1) * s - 2 * p + k for g, s, p, k in zip(grad.shape[2:], stride, padding, w.shape[2:])]
        extra = [n - r for n, r in zip(x.shape[2:], reach)]
        return aten.convolution(grad, w, None, stride, padding, dilation, True, extra, groups), None, None

    table = core_aten_decompositions() | {aten.convolution_backward.default: rule}
    traced = make_fx(denoise, decomposition_table=table)(*inputs)
    path = Path(tempfile.mkdtemp()) / "exported.onnx"
    torch.onnx.export(traced, inputs, str(path), dynamo=True, input_names=["noisy", "sigma", "class_weights"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    feed = dict(zip(["noisy", "sigma", "class_weights"], [np.asarray(t) for t in inputs]))
    feed = {name: feed[name] for name in names}
    return lambda: session.run(None, feed)


def speed(args):
    import torch

    torch.set_num_threads(args.threads)
    spec = json.loads((args.bundle / "spec.json").read_text())
    weights = {name: torch.tensor(value) for name, value in parameters(args.bundle).items()}
    denoise = network(spec, weights)
    # What `gradresnet bench` takes (runtime/src/bench.rs).
    n, c, y, x = (torch.arange(extent) for extent in (args.batch, 3, args.size, args.size))
    steps = n[:, None, None, None] + 7 * c[:, None, None] + 3 * y[:, None] + 5 * x
    sigma = torch.full((args.batch,), float(spec["sigma"]["max"]))
    inputs = ((steps % 11) / 10, sigma, torch.zeros((args.batch, len(spec["classes"]))))

    contenders = {"PyTorch, eager autograd": lambda: denoise(*inputs)}

    def attempt(name, make):
        try:
            function = make()
            function()
            contenders[name] = function
        except Exception as error:  # what fails is part of the result
            print(f"{name}: {type(error).__name__}: {str(error).strip().splitlines()[0]}", file=sys.stderr)

    attempt("make_fx, torch.onnx, ONNX Runtime", lambda: exported(denoise, inputs, args.threads))
    if not args.no_compile:
        compiled = torch.compile(denoise)
        attempt("torch.compile", lambda: lambda: compiled(*inputs))

    def flushed(function):
        torch.set_flush_denormal(True)
        function()
        torch.set_flush_denormal(False)

    if args.threads == 1:  # The processor's flag is that of one thread.
        for name, function in list(contenders.items()):
            contenders[f"{name}, flushed"] = functools.partial(flushed, function)
    times = {name: [] for name in contenders}
    for function in contenders.values():
        function()
    for _ in range(args.rounds):
        for name, function in contenders.items():
            times[name] += [clocked(function) for _ in range(args.runs)]
        for engine in ["tract", "ort"]:
            command = [program(), "bench", str(args.bundle), "--engine", engine, "--json"]
            command += ["--size", str(args.size), "--batch", str(args.batch), "--threads", str(args.threads)]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
            (row,) = [row for row in map(json.loads, lines) if row["graph"] == "denoiser"]
            times.setdefault(f"gradresnet, {engine}", []).append((row["median_ms"], row.get("cpu_ms")))
    reference = statistics.median(wall for wall, _ in times["PyTorch, eager autograd"])
    for name, rows in times.items():
        wall = statistics.median(wall for wall, _ in rows)
        cpu = [cpu for _, cpu in rows if cpu is not None]
        cpu = f"{statistics.median(cpu):7.1f} ms CPU" if cpu else ""
        print(f"{name:44} {wall:7.1f} ms {cpu}  {wall / reference:.2f} of eager")


def quality(args):
    import cv2
    import numpy as np
    from PIL import Image

    def psnr(a, b):
        error = np.mean((a.astype(float) - b.astype(float)) ** 2)
        return 10 * np.log10(255**2 / error)

    def bm3d(noisy, sigma):
        from bm3d import bm3d_rgb

        return np.clip(np.rint(bm3d_rgb(noisy / 255.0, sigma / 255.0) * 255), 0, 255)

    def means(noisy, sigma):
        # The strength that its authors' paper finds best for colour noise is near the noise level.
        return cv2.fastNlMeansDenoisingColored(noisy, None, 0.9 * sigma, 0.9 * sigma, 7, 21)

    names = sorted(p for p in args.images_dir.iterdir() if p.suffix in {".png", ".jpg"})[: args.images]
    cv2.setNumThreads(args.threads)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for sigma in args.sigma:
            noisy_dir = folder / f"noisy{sigma}"
            command = [program(), "add-noise", *map(str, names), "-o", str(noisy_dir), "--sigma", str(sigma)]
            subprocess.run([*command, "--format", "png"], check=True, capture_output=True)
            rows = {}
            ours = collections.deque([("tract", str(sigma)), ("ort", str(sigma)), ("tract", "auto")])
            for path in names:
                clean = np.asarray(Image.open(path).convert("RGB"))
                noisy_path = noisy_dir / (path.stem + ".png")
                noisy = np.asarray(Image.open(noisy_path).convert("RGB"))
                # The first to read an image finds it in no cache, so they take turns.
                ours.rotate()
                for engine, level in ours:
                    out = folder / f"{engine}-{level}-{sigma}"
                    command = [program(), "denoise", str(noisy_path), "-o", str(out), "--model", str(args.bundle)]
                    command += ["--sigma", level, "--engine", engine, "--jobs", str(args.threads)]
                    start = time.perf_counter()
                    subprocess.run([*command, "--quiet"], check=True)
                    seconds = time.perf_counter() - start
                    result = np.asarray(Image.open(out / noisy_path.name).convert("RGB"))
                    row = rows.setdefault(f"gradresnet denoise --engine {engine} --sigma {level}", [])
                    row.append((psnr(result, clean), seconds))
                for name, function in [("BM3D", bm3d), ("non-local means", means)]:
                    start = time.perf_counter()
                    result = function(noisy, sigma)
                    seconds = time.perf_counter() - start
                    rows.setdefault(name, []).append((psnr(result, clean), seconds))
            for name, row in rows.items():
                db = statistics.mean(r[0] for r in row)
                print(f"sigma {sigma}: {name:40} {db:6.2f} dB {statistics.median(r[1] for r in row):8.3f} s an image")


def profile(args):
    import numpy as np
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(args.bundle / "denoiser.onnx"), options)
        extents = {"batch": 1, "height": args.size, "width": args.size}
        inputs = {
            port.name: np.full([extents.get(d, d) for d in port.shape], 0.1, np.float32) for port in session.get_inputs()
        }
        for _ in range(args.runs):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text())
    times, nodes = collections.Counter(), collections.Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            times[event["args"]["op_name"]] += event["dur"]
            nodes[event["args"]["op_name"]] += 1
    total = sum(times.values())
    print(f"ONNX Runtime {onnxruntime.__version__}, {total / args.runs / 1000:.0f} ms a run")
    for name, time_of in times.most_common():
        print(f"{name:20} {100 * time_of / total:5.1f} % {nodes[name] // args.runs:4} nodes")


def mosaic(args):
    from PIL import Image

    whole = Image.new("RGB", (args.side, args.side))
    names = itertools.cycle(sorted(p for p in args.images_dir.iterdir() if p.suffix in {".png", ".jpg"}))
    for place in itertools.product(range(0, args.side, args.part), repeat=2):
        whole.paste(Image.open(next(names)).crop((0, 0, args.part, args.part)), place)
    whole.save(args.output)


def grey(args):
    from PIL import Image

    args.output.mkdir(exist_ok=True)
    for path in sorted(args.images_dir.iterdir())[::4]:
        Image.open(path).convert("L").save(args.output / f"{path.stem}.png")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("speed")
    command.set_defaults(run=speed)
    command.add_argument("bundle", type=Path)
    command.add_argument("--size", type=int, default=256)
    command.add_argument("--batch", type=int, default=1)
    command.add_argument("--threads", type=int, default=1)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--runs", type=int, default=5)
    command.add_argument("--no-compile", action="store_true")
    command = commands.add_parser("quality")
    command.set_defaults(run=quality)
    command.add_argument("bundle", type=Path)
    command.add_argument("images_dir", type=Path)
    command.add_argument("--images", type=int, default=68)
    command.add_argument("--sigma", type=int, nargs="+", default=[25])
    command.add_argument("--threads", type=int, default=1)
    command = commands.add_parser("profile")
    command.set_defaults(run=profile)
    command.add_argument("bundle", type=Path)
    command.add_argument("--size", type=int, default=256)
    command.add_argument("--runs", type=int, default=12)
    command = commands.add_parser("mosaic")
    command.set_defaults(run=mosaic)
    command.add_argument("images_dir", type=Path)
    command.add_argument("output", type=Path)
    command.add_argument("--side", type=int, default=2048)
    command.add_argument("--part", type=int, default=320)
    command = commands.add_parser("grey")
    command.set_defaults(run=grey)
    command.add_argument("images_dir", type=Path)
    command.add_argument("output", type=Path)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
