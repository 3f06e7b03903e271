#!/usr/bin/env python3
"""What the graphs of a bundle ask of a processor, whatever runs them.

    pip install onnx
    python tests/floor.py models/zoo/photo --size 256 --batch 1

For each graph, as it is written: the multiply-adds of its convolutions, the bytes that these read and write once in
float32, the bytes of all operators if each of them goes through memory, and its nodes, as a row of the table in
docs/performance.md.
"""

import argparse
import math
from pathlib import Path

import onnx

BYTES = 4
CONVOLUTIONS = {"Conv", "ConvTranspose"}
# These read no elements.
FREE = {"Constant", "Shape"}


def shapes(graph):
    """The shape of everything in an inferred graph, by its name."""
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    found |= {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    assert all(0 not in shape for shape in found.values()), "a dimension is not known"
    return found


def floor(path, extents):
    model = onnx.load(path, load_external_data=False)
    for port in [*model.graph.input, *model.graph.output]:
        for dimension in port.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_value = extents[dimension.dim_param]
    # Shapes that were written down hold symbols; they are inferred again.
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    shape = shapes(model.graph)

    multiply_adds, convolutions, operators = 0, 0, 0
    for node in model.graph.node:
        if node.op_type in FREE:
            continue
        moved = BYTES * sum(math.prod(shape[name]) for name in [*node.input, *node.output] if name)
        operators += moved
        if node.op_type in CONVOLUTIONS:
            convolutions += moved
            # Each element of a kernel meets every pixel of the output, of a transpose every one of the input.
            met = shape[node.output[0] if node.op_type == "Conv" else node.input[0]]
            multiply_adds += math.prod(shape[node.input[1]]) * met[0] * math.prod(met[2:])
    return len(model.graph.node), multiply_adds, convolutions, operators


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1)
    args = parser.parse_args()
    extents = {"batch": args.batch, "height": args.size, "width": args.size}
    for path in sorted(args.bundle.glob("*.onnx"), reverse=True):
        nodes, multiply_adds, convolutions, operators = floor(path, extents)
        images = f"{args.batch}×{args.size}×{args.size}"
        print(
            f"| `{args.bundle.resolve().name}`, {path.stem}, {images} | {multiply_adds / 1e9:.2f} G"
            f" | {convolutions / 1e6:.0f} MB | {operators / 1e6:.0f} MB | {nodes} |"
        )


if __name__ == "__main__":
    main()
