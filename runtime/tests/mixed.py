"""Builds a folder of small images of every kind, some of them broken, and checks what `gradresnet denoise` made
of them with Pillow and tifffile, which share no code with it.

    mixed.py build FOLDER COUNT BROKEN    images, and a list of the broken ones in FOLDER.broken
    mixed.py check FOLDER OUTPUT          one line for each fault; the status is 1 if there is one
"""

import re
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageCms, ImageOps, PngImagePlugin

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
MAKER, ORIENTATION, ARTIST, EXPOSURE, PLACE = 0x010F, 0x0112, 0x013B, 0x8769, 0x8825


def xmp(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="%d"/>'
        "</rdf:RDF></x:xmpmeta>" % orientation
    ).encode()


def exif(orientation):
    tags = Image.Exif()
    tags[MAKER], tags[ORIENTATION], tags[ARTIST] = "Maker", orientation, "An Artist"
    tags.get_ifd(EXPOSURE).update({0x829A: (1, 125), 0x8827: 400})
    tags.get_ifd(PLACE).update({1: "N", 2: (48.0, 51.0, 24.0)})
    return tags


class Scene:
    """Smooth colours with noise, in the forms that the kinds of files hold."""

    def __init__(self, rng):
        height, width = rng.integers(9, 90, 2)
        y, x = np.mgrid[0:height, 0:width] / 40
        waves = [0.5 + 0.3 * np.sin(x * (c + 1) + 6 * rng.random()) * np.cos(y + 6 * rng.random()) for c in range(3)]
        rgb = np.stack(waves, -1)
        self.rgb = np.clip(rgb + rng.normal(0, 0.06, rgb.shape), 0, 1)
        self.rgb8 = (255 * self.rgb).round().astype(np.uint8)
        self.grey8 = self.rgb8[..., 0]
        self.alpha = np.full((height, width), 255, np.uint8)
        self.alpha[: height // 3], self.alpha[height // 3 : height // 2] = 0, 100
        self.rgba8 = np.dstack([self.rgb8, self.alpha])
        self.greya8 = np.dstack([self.grey8, self.alpha])
        self.wide = (65535 * self.rgb).astype(np.uint16)
        # Beyond [0, 1], as unclipped noise is.
        self.float = (3 * self.rgb - 1).astype(np.float32)


def pillow(ending, pixels, mode=None, convert=None, metadata=False, turned=False, **options):
    """A kind that Pillow writes."""

    def write(scene, path, turn):
        image = Image.fromarray(getattr(scene, pixels), mode)
        image = image.convert(*convert) if convert else image
        orientation = turn if turned else 1
        if metadata or turned:
            options.update(exif=exif(orientation))
        if metadata:
            options.update(icc_profile=ICC)
            if ending == "png":
                text = PngImagePlugin.PngInfo()
                text.add_itxt("XML:com.adobe.xmp", xmp(orientation).decode())
                options.update(pnginfo=text)
            elif ending != "tif":
                options.update(xmp=xmp(orientation))
        image.save(path, **options)

    return ending, write


def tiff(pixels, channel=None, **options):
    """A kind that Pillow does not write."""

    def write(scene, path, turn):
        data = getattr(scene, pixels)
        tifffile.imwrite(path, data if channel is None else data[..., channel], **options)

    return "tif", write


def wide_ppm(scene, path, turn):
    height, width, _ = scene.wide.shape
    path.write_bytes(b"P6\n%d %d\n65535\n" % (width, height) + scene.wide.astype(">u2").tobytes())


def wide_png(scene, path, turn):
    height, width, _ = scene.wide.shape
    rows = b"".join(b"\0" + row.tobytes() for row in scene.wide.astype(">u2"))
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


KINDS = [
    pillow("png", "rgb8", metadata=True),
    pillow("png", "rgb8", turned=True),
    pillow("png", "grey8"),
    pillow("png", "greya8", mode="LA"),
    pillow("png", "rgba8"),
    pillow("png", "rgb8", convert=("P",)),
    pillow("png", "grey8", convert=("1",)),
    ("png", wide_png),
    pillow("jpg", "rgb8", metadata=True, quality=92),
    pillow("jpg", "rgb8", metadata=True, turned=True, quality=92),
    pillow("jpg", "grey8", quality=92),
    pillow("webp", "rgb8", metadata=True, quality=90),
    pillow("webp", "rgb8", metadata=True, turned=True, lossless=True),
    pillow("webp", "rgba8", lossless=True, exact=True),
    pillow("tif", "rgb8", metadata=True),
    pillow("tif", "rgb8", turned=True, compression="tiff_lzw"),
    pillow("tif", "grey8"),
    tiff("wide", photometric="rgb"),
    tiff("float", photometric="rgb"),
    tiff("float", channel=0),
    tiff("greya8", photometric="minisblack", extrasamples=["unassalpha"]),
    pillow("bmp", "rgb8"),
    pillow("pgm", "grey8"),
    pillow("ppm", "rgb8"),
    ("ppm", wide_ppm),
    pillow("qoi", "rgb8"),
]

BREAK = [
    lambda data, rng: data[: len(data) // 2],
    lambda data, rng: b"",
    lambda data, rng: rng.bytes(500),
    lambda data, rng: b"<html>not an image</html>",
    lambda data, rng: data[:20],
]


def build(folder, count, broken):
    rng = np.random.default_rng(5)
    paths = []
    for i in range(count):
        ending, write = KINDS[i % len(KINDS)]
        path = folder / f"{i % 7}" / f"{i % 3}" / f"{i:03}.{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        write(Scene(rng), path, 1 + i // len(KINDS) % 8)
        paths.append(path)
    chosen = [paths[i] for i in rng.choice(count, broken, replace=False)]
    for i, path in enumerate(chosen):
        path.write_bytes(BREAK[i % len(BREAK)](path.read_bytes(), rng))
    lines = [path.relative_to(folder).as_posix() for path in chosen]
    folder.with_suffix(".broken").write_text("".join(line + "\n" for line in lines))


def samples(path):
    """The stored samples: [H,W] or [H,W,C]."""
    if path.suffix == ".ppm":
        # Pillow reads 16 bits as 8.
        header, width, height, limit, data = re.match(rb"(P6)\s(\d+)\s(\d+)\s(\d+)\s(.*)", path.read_bytes(), re.S).groups()
        kind = ">u2" if int(limit) > 255 else "u1"
        return np.frombuffer(data, kind).reshape(int(height), int(width), 3)
    image = opened(path)
    if image is None:
        return tifffile.imread(path)
    return np.asarray(image.convert({"P": "RGB", "1": "L"}.get(image.mode, image.mode)))


def opened(path):
    """What Pillow reads; not TIFF of 16 bits or floats in colour."""
    try:
        return Image.open(path)
    except OSError:
        return None


def faults(source, target):
    """What is wrong with the output for an input."""
    before, after = samples(source), samples(target)
    old, new = opened(source), opened(target)
    one_bit = old is not None and old.mode == "1"
    if old is not None:
        turn = old.getexif().get(ORIENTATION, 1)
        if turn != 1:
            upright = ImageOps.exif_transpose(old)
            before = np.asarray(upright)
        if old.format != new.format:
            yield f"{old.format} became {new.format}"
        if new.getexif().get(ORIENTATION, 1) != 1:
            yield "it is not said to be upright"
    if before.shape != after.shape or before.dtype.itemsize != after.dtype.itemsize:
        yield f"{before.shape} {before.dtype} became {after.shape} {after.dtype}"
        return
    scale = {1: 255, 2: 65535, 4: 3}[before.dtype.itemsize]
    if before.ndim == 3 and before.shape[2] in (2, 4):
        hidden = before[..., -1] == 0
        if (before[..., -1] != after[..., -1]).any() or (before[hidden] != after[hidden]).any():
            yield "transparency or what it hides changed"
        before, after = before[~hidden], after[~hidden]
    change = np.sqrt(np.mean((before / scale - after / scale) ** 2))
    if not one_bit and not 2e-4 < change < 0.15:
        yield f"the root mean square of the change is {change:.5f}"
    if old is not None and source.suffix in (".jpg", ".png", ".webp", ".tif"):
        a, b = old.getexif(), new.getexif()
        for tag in (MAKER, ARTIST):
            if a.get(tag) != b.get(tag):
                yield f"EXIF {tag:#x} was {a.get(tag)} and is {b.get(tag)}"
        for part in (EXPOSURE, PLACE):
            if dict(a.get_ifd(part)) != dict(b.get_ifd(part)):
                yield f"EXIF {part:#x} was {dict(a.get_ifd(part))} and is {dict(b.get_ifd(part))}"
        if old.info.get("icc_profile") != new.info.get("icc_profile"):
            yield "the colour profile changed"
        if packet(old) and re.sub(rb'Orientation="\d"', b'Orientation="1"', packet(old)) != packet(new):
            yield f"XMP was {packet(old)} and is {packet(new)}"


def packet(image):
    found = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp")
    return found.encode() if isinstance(found, str) else found


def check(folder, output):
    broken = set(folder.with_suffix(".broken").read_text().split())
    found, checked = 0, 0
    for source in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = source.relative_to(folder).as_posix()
        target = output / name
        if target.exists() != (name not in broken):
            wrong = ["it is missing" if name not in broken else "it exists, of a broken file"]
        else:
            wrong = [] if name in broken else list(faults(source, target))
        checked += name not in broken
        for fault in wrong:
            found += 1
            print(f"{name}: {fault}")
    print(f"{checked} outputs checked, {found} faults")
    sys.exit(found > 0)


if __name__ == "__main__":
    command, folder, *rest = sys.argv[1:]
    if command == "build":
        build(Path(folder), *map(int, rest))
    else:
        check(Path(folder), Path(rest[0]))
