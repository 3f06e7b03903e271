"""Makes the seeds of the fuzz targets. Needs Pillow, tifffile, onnx, and `cargo` for the graphs.

    $GRADRESNET_PYTHON fuzz/make_corpus.py

Files whose name starts with `good-` must be accepted; runtime/tests/corpus.rs sees to that. What fuzzing
found lies beside them and is not made here.
"""

import hashlib
import io
import json
import math
import pathlib
import struct
import subprocess
import tempfile
import zlib

import numpy
import onnx
import tifffile
from PIL import Image, ImageCms

ROOT = pathlib.Path(__file__).parent
CORPUS = ROOT / "corpus"
SPEC = json.loads((CORPUS / "spec/good-tiny.json").read_text())
SEPARATOR = b"\n=====\n"


def put(target, name, content):
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    (CORPUS / target / name).write_bytes(content)


def text(spec):
    return (json.dumps(spec, indent=1) + "\n").encode()


def specs():
    full = SPEC | {
        "name": "full.Name_1-2",
        "image_size": 32,
        "provenance": {"data": "none", "steps": 7, "seed": 2**64 - 1, "cpu_hours": 0.1, "command": "make",
                       "versions": {"libtorch": "2"}},
        "metrics": [{"data": "none", "metric": "psnr", "sigma": 25.0, "value": 29.1, "command": "measure"}],
        "files": {"forward.onnx": "00" * 32},
    }
    put("spec", "good-full.json", text(full))
    wide = SPEC["architecture"] | {"stem": "imagenet", "width": 16, "blocks": [2, 2, 2], "block": "end",
                                   "norm": "homogeneous", "side_connections": "stages",
                                   "activation": "silu", "biases": True}
    put("spec", "good-wide.json", text(SPEC | {"architecture": wide, "task": "denoising", "classes": []}))
    deep = SPEC["architecture"] | {"width": 1024, "blocks": [64] * 6, "norm": "batch"}
    put("spec", "too-many-parameters.json", text(SPEC | {"architecture": deep}))
    put("spec", "newer-format.json", text(SPEC | {"format": 2, "more": 1}))
    put("spec", "nested.json", b'{"format":1,"provenance":' + b"[" * 300)


def safetensors(arrays, metadata=None):
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].itemsize, item[0])):
        kind = {"float32": "F32", "float64": "F64", "int64": "I64"}[str(array.dtype)]
        end = len(data) + array.nbytes
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), end]}
        data += array.tobytes()
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + data


def wave(*shape):
    count = math.prod(shape)
    return (numpy.sin(numpy.arange(count) * 1.7) * 0.2 + 0.1).astype(numpy.float32).reshape(shape)


def parameters():
    return {
        "stem.conv.weight": wave(8, 3, 3, 3),
        "stages.0.0.conv1.weight": wave(8, 8, 3, 3),
        "stages.0.0.conv2.weight": wave(8, 8, 3, 3),
        "stages.0.0.norm.weight": wave(8) + 1,
        "side.stem.weight": wave(4, 8),
        "head.weight": wave(2, 12),
        "energy.weight": wave(12),
    }


def golden():
    arrays = {}
    for n, (batch, height, width) in enumerate([(1, 2, 2), (2, 2, 3)]):
        image = wave(batch, 3, height, width)
        arrays |= {
            f"{n}.noisy": image,
            f"{n}.sigma": wave(batch),
            f"{n}.class_weights": wave(batch, 2),
            f"{n}.denoised": image.astype(numpy.float64),
            f"{n}.energy": wave(batch).astype(numpy.float64),
            f"{n}.logits": wave(batch, 2).astype(numpy.float64),
        }
    return safetensors(arrays, {"source": "by hand"})


def tensors():
    put("tensors", "good-parameters.safetensors", safetensors(parameters()))
    put("tensors", "good-golden.safetensors", golden())
    put("tensors", "good-empty.safetensors", safetensors({}))
    put("tensors", "good-none.safetensors", safetensors({"a": wave(0, 3)}, {"b": "c"}))
    put("tensors", "good-nan.safetensors", safetensors({"a": numpy.float32([math.nan])}))
    put("tensors", "integers.safetensors", safetensors({"a": numpy.int64([1])}))
    put("tensors", "huge-header.safetensors", struct.pack("<Q", 2**63) + b"{}")
    put("tensors", "huge-shape.safetensors", safetensors({"a": wave(1)}).replace(b"[1]", b"[9223372036854775807]"))


def graphs():
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = pathlib.Path(folder) / "checkpoint"
        checkpoint.mkdir()
        (checkpoint / "spec.json").write_bytes(text(SPEC))
        (checkpoint / "model.safetensors").write_bytes(safetensors(parameters()))
        forms = {"inline": [], "shared": ["--weights", "shared"], "float16": ["--precision", "float16"]}
        for form, options in forms.items():
            bundle = pathlib.Path(folder) / form
            subprocess.run(["cargo", "run", "--release", "-p", "gradresnet-export", "--", checkpoint, "-o", bundle,
                            *options], check=True, cwd=ROOT.parent)
            for name in ["forward", "denoiser"]:
                put("graph", f"good-{name}-{form}.onnx", (bundle / f"{name}.onnx").read_bytes())
    changed("outside", lambda tensor: tensor.external_data[0].__setattr__("value", "../../secret"))
    # The file that the target writes beside the graph ends there.
    changed("beyond-the-end", lambda tensor: tensor.external_data[1].__setattr__("value", "8192"))
    changed("huge", lambda tensor: tensor.dims.__setitem__(0, 2**40))
    changed("overflow", lambda tensor: tensor.dims.extend([2**62, 2**62]))


def changed(name, change):
    model = onnx.load(CORPUS / "graph/good-forward-shared.onnx", load_external_data=False)
    change(next(t for t in model.graph.initializer if t.external_data))
    put("graph", f"{name}.onnx", model.SerializeToString())


def bundles():
    contents = {"forward.onnx": b"forward", "denoiser.onnx": b"denoiser", "golden.safetensors": golden()}

    def bundle(files, contents):
        return SEPARATOR.join([text(SPEC | {"files": files}), *contents.values()])

    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    put("bundle", "good-whole", bundle(digests, contents))
    shared = contents | {"model.safetensors": safetensors({"a": wave(2)})}
    more = digests | {"model.safetensors": hashlib.sha256(shared["model.safetensors"]).hexdigest()}
    put("bundle", "good-shared", bundle(more, shared))
    put("bundle", "good-wrong-digests", bundle({name: "0" * 64 for name in digests}, contents))
    put("bundle", "unlisted-file", bundle(digests, shared))
    put("bundle", "path-that-leads-out", bundle(digests | {"../forward.onnx": "0"}, contents))
    put("bundle", "spec-alone", text(SPEC))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples):
    """A PNG file of 16 bits, which Pillow writes of grey alone."""
    height, width, channels = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))


def pictures():
    eight = (wave(6, 7, 4) * 255 + 60).clip(0, 255).astype(numpy.uint8)
    image = Image.fromarray(eight, "RGBA")
    sixteen = eight.astype(numpy.uint16) * 257

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    exif.get_ifd(0x8769)[0x829A] = 0.01
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><r tiff:Orientation="6"/></x:xmpmeta>'
    described = {"exif": exif.tobytes(), "icc_profile": ImageCms.ImageCmsProfile(
        ImageCms.createProfile("sRGB")).tobytes(), "xmp": xmp}

    def save(name, mode, kind, **options):
        file = io.BytesIO()
        image.convert(mode).save(file, kind, **options)
        put("picture", name, file.getvalue())

    for mode in ["1", "L", "LA", "P", "RGB", "RGBA"]:
        save(f"good-{mode.lower()}.png", mode, "png")
    save("good-described.png", "RGB", "png", exif=described["exif"], icc_profile=described["icc_profile"])
    save("good-transparent-colour.png", "RGB", "png", transparency=(1, 2, 3))
    for channels in [1, 2, 3, 4]:
        put("picture", f"good-16-bit-{channels}.png", png(sixteen[..., :channels]))
    save("animated.png", "RGB", "png", save_all=True, append_images=[image.convert("RGB").rotate(180)])

    save("good-grey.jpg", "L", "jpeg")
    save("good-colour.jpg", "RGB", "jpeg", subsampling="4:2:0")
    save("good-progressive.jpg", "RGB", "jpeg", progressive=True, subsampling="4:4:4")
    save("good-restart.jpg", "RGB", "jpeg", restart_marker_blocks=1)
    save("good-described.jpg", "RGB", "jpeg", **described)
    save("cmyk.jpg", "CMYK", "jpeg")

    save("good-lossy.webp", "RGB", "webp")
    save("good-lossy-alpha.webp", "RGBA", "webp")
    save("good-lossless.webp", "RGBA", "webp", lossless=True)
    save("good-described.webp", "RGB", "webp", **described)
    save("animated.webp", "RGB", "webp", save_all=True, append_images=[image.convert("RGB").rotate(180)])

    for mode in ["1", "L", "P", "RGB", "RGBA"]:
        save(f"good-{mode.lower()}.bmp", mode, "bmp")
    save("good-pillow.tif", "RGB", "tiff", compression="tiff_lzw", exif=exif, icc_profile=described["icc_profile"])

    def tiff(name, samples, **options):
        file = io.BytesIO()
        tifffile.imwrite(file, samples, metadata=None, **options)
        put("picture", f"{name}.tif", file.getvalue())

    floats = eight.astype(numpy.float32) / 200
    for kind, samples in [("8-bit", eight), ("16-bit", sixteen), ("float", floats)]:
        tiff(f"good-{kind}-grey", samples[..., 0], photometric="minisblack")
        tiff(f"good-{kind}-grey-alpha", samples[..., :2].copy(), photometric="minisblack", planarconfig="contig",
             extrasamples=["unassalpha"])
        tiff(f"good-{kind}-colour", samples[..., :3].copy(), photometric="rgb")
        tiff(f"good-{kind}-alpha", samples, photometric="rgb", extrasamples=["unassalpha"])
    tiff("good-deflate", eight[..., :3].copy(), photometric="rgb", compression="zlib", predictor=True)
    tiff("good-big", eight[..., :3].copy(), photometric="rgb", bigtiff=True, byteorder=">")
    tiff("good-strips", eight[..., :3].copy(), photometric="rgb", rowsperstrip=2)
    tiff("good-tiles", numpy.tile(eight[..., :3], (4, 4, 1)), photometric="rgb", tile=(16, 16), compression="zlib")
    tiff("two-pages", eight[None, ..., 0].repeat(2, 0), photometric="minisblack")
    tiff("separate-planes", numpy.moveaxis(eight[..., :2], 2, 0).copy(), photometric="minisblack",
         planarconfig="separate", extrasamples=["unassalpha"])
    tiff("not-a-number", floats[..., 0] * numpy.nan, photometric="minisblack")

    small = eight[:2, :3, :3]
    put("picture", "good-plain-bits.pnm", b"P1\n3 2\n1 0 1\n0 1 0\n")
    put("picture", "good-plain-grey.pnm", b"P2\n# a comment\n3 2\n255\n0 1 2 3 4 255\n")
    put("picture", "good-plain-colour.pnm", b"P3\n1 2\n255\n0 1 2 3 4 255\n")
    put("picture", "good-bits.pnm", b"P4\n3 2\n\xa0\x40")
    put("picture", "good-grey.pnm", b"P5\n3 2\n255\n" + small[..., 0].tobytes())
    put("picture", "good-colour.pnm", b"P6\n3 2\n255\n" + small.tobytes())
    put("picture", "good-16-bit.pnm", b"P6\n3 2\n65535\n" + (small.astype(">u2") * 257).tobytes())
    arbitrary = b"P7\nWIDTH 3\nHEIGHT 2\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n"
    put("picture", "good-alpha.pam", arbitrary + eight[:2, :3].tobytes())

    body = b"".join(b"\xff" + bytes(pixel) for pixel in eight[:2, :3].reshape(-1, 4))
    put("picture", "good-alpha.qoi", b"qoif" + struct.pack(">IIBB", 3, 2, 4, 0) + body + bytes(7) + b"\1")
    body = b"".join(b"\xfe" + bytes(pixel) for pixel in small.reshape(-1, 3))
    put("picture", "good-colour.qoi", b"qoif" + struct.pack(">IIBB", 3, 2, 3, 0) + body + bytes(7) + b"\1")
    put("picture", "good-run.qoi", b"qoif" + struct.pack(">IIBB", 8, 4, 3, 0) + b"\xdf" + bytes(7) + b"\1")

    put("picture", "huge.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8,
                                                                                  6, 0, 0, 0)) + chunk(b"IEND", b""))
    put("picture", "huge.pnm", b"P6\n4294967295 4294967295\n65535\n")


specs()
tensors()
bundles()
pictures()
graphs()
