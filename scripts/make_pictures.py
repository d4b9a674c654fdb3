#!/usr/bin/env python3
"""Writes the small pictures of pkg/dataset/testdata/pictures and what Pillow makes of them.

  scripts/make_pictures.py OUT

expected.json says, per file and for whole reading ("strict") and with LOAD_TRUNCATED_IMAGES ("lenient"), the size and
the SHA-256 of Image.open(f).convert("RGB"), or "error". cuts.json says the same, shorter, of pictures of several scans
that end after every fifth byte from the first scan on ("lenient"). Needs Pillow 11.3 and NumPy; makes the same files every time.
"""
import hashlib
import io
import json
import os
import random
import struct
import sys
import warnings
import zlib

import numpy as np
from PIL import Image, ImageFile

RNG, NRNG = random.Random(5), np.random.default_rng(5)
MANY_SCANS = ["jpeg-q30-progressive.jpg", "jpeg-q75-progressive-subsampling-restart_marker_blocks.jpg", "jpeg-L-True.jpg",
              "jpeg-CMYK-True.jpg", "jpeg-planes.jpg", "jpeg-planes-two.jpg"]
CUT_STEP = 5
ZIGZAG = [0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6, 7, 14, 21, 28, 35,
          42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63]


def scene(w, h):
    """A picture with gradients, edges and grain."""
    y, x = np.mgrid[0:h, 0:w]
    wave = 60 * np.sin(x / 5) * np.cos(y / 4)
    disc = np.where((x - w / 2) ** 2 + (y - h / 2) ** 2 < (min(w, h) / 3) ** 2, 70, 0)
    rgb = np.stack([x * 200 / w + wave, y * 180 / h - wave / 2 + disc, 120 + wave / 3 - disc], 2)
    return Image.fromarray(np.clip(rgb + NRNG.integers(0, 24, (h, w, 1)), 0, 255).astype(np.uint8))


def encode(im, fmt, **kw):
    b = io.BytesIO()
    im.save(b, fmt, **kw)
    return b.getvalue()


class JPEGWriter:
    """Baseline pictures of random coefficients: every sampling, which no ordinary encoder writes."""

    def __init__(self, w, h, factors, restart=0, ids=None, app=b"", scans=None):
        hmax, vmax = max(f[0] for f in factors), max(f[1] for f in factors)
        mw, mh = -(-w // (8 * hmax)), -(-h // (8 * vmax))
        n = len(factors)
        ids = ids or list(range(1, n + 1))
        quant = bytes([8] + [6 + k // 4 for k in range(1, 64)])
        self.dc = [(2 + (k > 3)) if k < 6 else k - 2 for k in range(12)]
        out = b"\xff\xd8" + app + self.segment(0xDB, b"\0" + quant)
        frame = struct.pack(">BHHB", 8, h, w, n) + b"".join(bytes([i, f[0] << 4 | f[1], 0]) for i, f in zip(ids, factors))
        out += self.segment(0xC0, frame) + self.tables()
        if restart:
            out += self.segment(0xDD, struct.pack(">H", restart))
        for members in scans or [list(range(n))]:
            out += self.segment(0xDA, bytes([len(members)]) + b"".join(bytes([ids[m], 0]) for m in members) + b"\0\x3f\0")
            if len(members) > 1:
                units = [(m, f) for m in members for f in range(factors[m][0] * factors[m][1])]
                count = mw * mh
            else:
                f = factors[members[0]] if n > 1 else (1, 1)
                hm, vm = (hmax, vmax) if n > 1 else (1, 1)
                cw, ch = -(-w * f[0] // hm), -(-h * f[1] // vm)
                units, count = [(members[0], 0)], -(-cw // 8) * -(-ch // 8)
            out += self.scan(units, count, restart)
        self.body = out + b"\xff\xd9"

    @staticmethod
    def segment(mark, body):
        return bytes([0xFF, mark]) + struct.pack(">H", len(body) + 2) + body

    def tables(self):
        # DC: 12 codes of 4 bits; AC: symbols of run 0..15 and size 1..4, EOB and ZRL, codes of 7 and 8 bits.
        self.ac = [0x00] + [r << 4 | s for r in range(16) for s in range(1, 5)] + [0xF0]
        dc = bytes([0, 0, 0, 12] + [0] * 12) + bytes(range(12))
        ac = bytes([0, 0, 0, 1, 0, 0, 40, 25] + [0] * 8) + bytes(self.ac)
        codes, code, k = {}, 0, 0
        for length, number in enumerate([0, 0, 0, 1, 0, 0, 40, 25], 1):
            for _ in range(number):
                codes[self.ac[k]] = (code, length)
                code, k = code + 1, k + 1
            code <<= 1
        self.codes = codes
        return self.segment(0xC4, b"\0" + dc) + self.segment(0xC4, b"\x10" + ac)

    def scan(self, units, count, restart):
        out, bits, mark = b"", [], 0
        pred = {}

        def flush():
            nonlocal bits
            bits += [1] * (-len(bits) % 8)
            body = np.packbits(np.array(bits, dtype=np.uint8)).tobytes().replace(b"\xff", b"\xff\0")
            bits = []
            return body

        def put(value, n):
            bits.extend((value >> (n - 1 - k)) & 1 for k in range(n))

        def coefficient(v):
            size = abs(v).bit_length()
            return size, v if v >= 0 else v + (1 << size) - 1

        for i in range(count):
            if restart and i and i % restart == 0:
                out += flush() + bytes([0xFF, 0xD0 + mark])
                mark, pred = (mark + 1) % 8, {}
            for m, _ in units:
                dc = max(-100, min(100, pred.get(m, 0) + RNG.randint(-30, 30)))
                size, own = coefficient(dc - pred.get(m, 0))
                pred[m] = dc
                put(size, 4)
                put(own, size)
                k = 1
                while k < 64:
                    run = RNG.choice([0, 0, 1, 2, 5, 20])
                    if k + run > 63 or RNG.random() < 0.2:
                        put(*self.codes[0])
                        break
                    while run > 15:
                        put(*self.codes[0xF0])
                        run, k = run - 16, k + 16
                    size, own = coefficient(RNG.choice([-9, -4, -2, -1, 1, 2, 3, 7]))
                    put(*self.codes[run << 4 | size])
                    put(own, size)
                    k += run + 1
        return out + flush()


def jpegs(put):
    adobe = lambda t: JPEGWriter.segment(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([t]))
    jfif = JPEGWriter.segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    three = {"444": "11 11 11", "422": "21 11 11", "420": "22 11 11", "440": "12 11 11", "411": "41 11 11", "410": "42 11 11",
             "441": "14 11 11", "mixed": "22 21 12", "chroma": "11 22 21", "odd": "22 21 11", "cb": "21 11 21"}
    for name, factors in three.items():
        f = [(int(x[0]), int(x[1])) for x in factors.split()]
        for w, h in ((35, 29), (3, 5)):
            put(f"jpeg-{name}-{w}x{h}.jpg", JPEGWriter(w, h, f, app=jfif, restart=2 if w == 35 and name in ("420", "411") else 0).body)
    put("jpeg-planes.jpg", JPEGWriter(30, 21, [(2, 2), (1, 1), (1, 1)], scans=[[0], [1, 2]]).body)
    put("jpeg-planes-two.jpg", JPEGWriter(30, 21, [(2, 1), (1, 1), (1, 1)], scans=[[1], [0, 2]], restart=3).body)
    put("jpeg-grey-22.jpg", JPEGWriter(19, 21, [(2, 2)]).body)
    for t in (0, 1, 2):
        put(f"jpeg-adobe{t}.jpg", JPEGWriter(20, 18, [(2, 2), (1, 1), (1, 1)], app=adobe(t)).body)
        put(f"jpeg-inks{t}.jpg", JPEGWriter(20, 18, [(2, 2), (1, 1), (1, 1), (2, 2)], app=adobe(t)).body)
    put("jpeg-inks.jpg", JPEGWriter(20, 18, [(1, 1)] * 4).body)
    put("jpeg-rgb-ids.jpg", JPEGWriter(20, 18, [(1, 1)] * 3, ids=[82, 71, 66]).body)
    put("jpeg-ids-0.jpg", JPEGWriter(20, 18, [(1, 1)] * 3, ids=[0, 1, 2]).body)
    put("jpeg-jfif-adobe0.jpg", JPEGWriter(20, 18, [(1, 1)] * 3, app=jfif + adobe(0)).body)
    im = scene(61, 47)
    for q, kw in ((1, {}), (30, dict(progressive=True)), (75, dict(progressive=True, subsampling="4:2:2", restart_marker_blocks=3)),
                  (90, dict(optimize=True)), (100, dict(subsampling="4:4:4")), (85, dict(keep_rgb=True))):
        name = f"jpeg-q{q}" + "".join("-" + k for k in kw)
        body = encode(im, "JPEG", quality=q, **kw)
        put(name + ".jpg", body)
        put(name + "-cut.jpg", body[:len(body) * 7 // 10])
    for mode in ("L", "CMYK"):
        for prog in (False, True):
            body = encode(im.convert(mode), "JPEG", quality=80, progressive=prog)
            put(f"jpeg-{mode}-{prog}.jpg", body)
            put(f"jpeg-{mode}-{prog}-cut.jpg", body[:len(body) * 8 // 10])
    body = bytearray(JPEGWriter(64, 64, [(2, 2), (1, 1), (1, 1)], restart=2).body)
    start = body.rindex(b"\xff\xda") + 14
    for k in (3, 40, 90, 200):
        body[start + k] ^= 0x5A
    put("jpeg-damaged.jpg", bytes(body))
    lost = JPEGWriter(64, 64, [(2, 2), (1, 1), (1, 1)], restart=2).body
    first, second = lost.index(b"\xff\xd1"), lost.index(b"\xff\xd3")
    put("jpeg-lost-restarts.jpg", lost[:first] + lost[second:])
    put("jpeg-junk.jpg", lost.replace(b"\xff\xc4", b"junk\xff\xff\xc4", 1) + b"behind")


def chunk(tag, body):
    return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))


def png(w, h, depth, kind, raw, interlace=0, extra=b""):
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, kind, 0, 0, interlace)) + extra
            + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def pngs(put):
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    for kind, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
        for depth in depths:
            for interlace in (0, 1):
                w, h = RNG.randint(1, 19), RNG.randint(1, 13)
                sizes = [(h, w)]
                if interlace:
                    sizes = [(-(-(h - y) // dy), -(-(w - x) // dx)) for y, x, dy, dx in
                             ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))]
                raw = b"".join(bytes([RNG.randint(0, 4)]) + NRNG.integers(0, 256, (n * samples[kind] * depth + 7) // 8, dtype=np.uint8).tobytes()
                               for rows, n in sizes if n > 0 for _ in range(max(rows, 0)))
                extra = b""
                if kind == 3:
                    extra = chunk(b"PLTE", NRNG.integers(0, 256, 3 * RNG.randint(1, 1 << depth), dtype=np.uint8).tobytes()) + chunk(b"tRNS", b"\0\x80")
                elif kind in (0, 2):
                    extra = chunk(b"tRNS", bytes(2 * samples[kind]))
                body = png(w, h, depth, kind, raw, interlace, extra)
                put(f"png-{kind}-{depth}-{interlace}.png", body)
                if depth == 8:
                    put(f"png-{kind}-{depth}-{interlace}-cut.png", body[:len(body) * 8 // 10])
    raw = b"".join(b"\0" + NRNG.integers(0, 256, 27, dtype=np.uint8).tobytes() for _ in range(7))
    good = png(9, 7, 8, 2, raw)
    at = good.index(b"IDAT")
    put("png-no-end.png", good[:-12])
    put("png-bad-header-sum.png", good[:29] + b"\0" + good[30:])
    put("png-bad-data-sum.png", good[:-13] + b"\0" + good[-12:])
    put("png-bad-text-sum.png", good[:at - 4] + chunk(b"tEXt", b"a\0b")[:-1] + b"\0" + good[at - 4:])
    put("png-bad-filter.png", png(9, 7, 8, 2, b"\x09" + raw[1:]))
    put("png-no-palette.png", png(9, 7, 8, 3, raw[:70]))
    put("png-animation.png", encode(scene(12, 10), "PNG", save_all=True, append_images=[scene(12, 10)]))


def bmps(put):
    def bmp(w, h, bits, data, compression=0, palette=b"", masks=b"", size=40, colors=0):
        head = (struct.pack("<IiiHHIIiiII", size, w, h, 1, bits, compression, len(data), 0, 0, colors, 0) + masks)[:max(size, 40 + len(masks))]
        head = head.ljust(size, b"\0")
        return b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + len(head) + len(palette)) + head + palette + data

    noise = lambda n: NRNG.integers(0, 256, n, dtype=np.uint8).tobytes()
    w, h = 11, 5
    for bits in (1, 4, 8, 16, 24, 32):
        stride = (w * bits + 31) // 32 * 4
        palette = noise(4 << bits) if bits <= 8 else b""
        body = bmp(w, h, bits, noise(stride * h), palette=palette)
        put(f"bmp-{bits}.bmp", body)
        put(f"bmp-{bits}-cut.bmp", body[:-stride - 3])
        put(f"bmp-{bits}-down.bmp", bmp(w, -h, bits, noise(stride * h), palette=palette))
        if bits <= 8:
            put(f"bmp-{bits}-few.bmp", bmp(w, h, bits, noise(stride * h), palette=palette[:4], colors=1))
            put(f"bmp-{bits}-os2.bmp", b"BM" + struct.pack("<IHHI", 0, 0, 0, 26 + (3 << bits)) + struct.pack("<IHHHH", 12, w, h, 1, bits) + noise((3 << bits) + stride * h))
    put("bmp-grey.bmp", bmp(w, h, 8, noise(12 * h), palette=b"".join(bytes([k, k, k, 0]) for k in range(200)), colors=200))
    for bits, masks in ((32, (0xFF000000, 0xFF0000, 0xFF00, 0xFF)), (32, (0xFF, 0xFF00, 0xFF0000, 0xFF000000)), (32, (1, 2, 4, 8)),
                        (16, (0xF800, 0x7E0, 0x1F, 0)), (16, (0x7C00, 0x3E0, 0x1F, 0))):
        for size in (40, 108):
            m = struct.pack("<IIII", *masks)
            put(f"bmp-masks-{bits}-{masks[0]:x}-{size}.bmp", bmp(w, h, bits, noise((w * bits + 31) // 32 * 4 * h), 3, masks=m[:12] if size == 40 else m, size=size))
    runs8 = b"".join(bytes([5, k, 0, 3, 1, 2, 3, 0, 3, 7, 0, 0]) for k in range(h)) + b"\0\1"
    runs4 = b"".join(bytes([5, 0x10 + k, 0, 4, 0x12, 0x34, 2, 7, 0, 0]) for k in range(h)) + b"\0\1"
    put("bmp-runs8.bmp", bmp(w, h, 8, runs8, 1, noise(1024)))
    put("bmp-runs4.bmp", bmp(w, h, 4, runs4, 2, noise(64)))
    put("bmp-runs8-short.bmp", bmp(w, h, 8, runs8[:30] + b"\0\1", 1, noise(1024)))


def others(put):
    im = scene(33, 21)
    rgba = im.convert("RGBA")
    rgba.putalpha(Image.fromarray(NRNG.integers(0, 256, (21, 33), dtype=np.uint8)))
    pal = im.quantize(16)
    put("gif-plain.gif", encode(pal, "GIF", interlace=0))
    put("gif-interlaced.gif", encode(pal, "GIF", interlace=1))
    put("gif-grey.gif", encode(im.convert("L"), "GIF"))
    put("gif-transparent.gif", encode(pal, "GIF", transparency=3))
    body = encode(im, "GIF", save_all=True, append_images=[scene(33, 21)])
    put("gif-animation.gif", body)
    put("gif-cut.gif", encode(scene(40, 40).quantize(250), "GIF")[:-500])
    small = bytearray(encode(pal, "GIF"))
    small[6:10] = struct.pack("<HH", 50, 40)
    put("gif-screen.gif", bytes(small))
    put("webp-lossy.webp", encode(im, "WEBP", quality=60))
    put("webp-lossy-even.webp", encode(scene(32, 24), "WEBP", quality=20))
    put("webp-lossless.webp", encode(im, "WEBP", lossless=True))
    put("webp-alpha.webp", encode(rgba, "WEBP", quality=70))
    put("webp-lossless-alpha.webp", encode(rgba, "WEBP", lossless=True, exact=True))
    put("webp-animation.webp", encode(im, "WEBP", save_all=True, append_images=[scene(33, 21)]))
    put("webp-cut.webp", encode(im, "WEBP", quality=60)[:-30])
    put("webp-one.webp", encode(scene(1, 1), "WEBP", quality=60))
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "F", "I;16"):
        if mode == "I;16":
            src = Image.fromarray(np.asarray(im.convert("L")).astype(np.uint16) * 2)
        elif mode == "I":
            src = Image.fromarray(NRNG.integers(-300, 600, (21, 33), dtype=np.int32))
        elif mode == "F":
            src = Image.fromarray(NRNG.uniform(-100, 400, (21, 33)).astype(np.float32))
        else:
            src = pal if mode == "P" else rgba.convert(mode)
        for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "group3", "group4"):
            if compression == "jpeg" and mode not in ("L", "RGB") or (compression or "").startswith("group") and mode != "1":
                continue
            if compression in ("tiff_lzw", "packbits") and mode not in ("L", "RGB", "P", "1"):
                continue
            kw = {"tiffinfo": {317: 2}} if compression == "tiff_adobe_deflate" and mode in ("L", "RGB", "RGBA") else {}
            put(f"tiff-{mode.replace(';', '')}-{compression}.tif", encode(src, "TIFF", compression=compression, **kw))
    put("tiff-big.tif", encode(im, "TIFF", big_tiff=True))
    for turn in range(1, 9):
        put(f"tiff-turned{turn}.tif", encode(im, "TIFF", compression="tiff_lzw", tiffinfo={274: turn}))
    put("tiff-ycbcr-jpeg.tif", encode(im.convert("YCbCr"), "TIFF", compression="jpeg"))


def result(path, lenient):
    ImageFile.LOAD_TRUNCATED_IMAGES = lenient
    try:
        im = Image.open(path).convert("RGB")
    except Exception:
        return "error"
    return f"{im.width}x{im.height} {hashlib.sha256(im.tobytes()).hexdigest()}"


def cut_scans(path):
    """What is left of a JPEG picture that ends after every CUT_STEP-th byte."""
    with open(path, "rb") as f:
        body = f.read()
    first = body.index(b"\xff\xda") + 14 + 2 * (body[body.index(b"\xff\xda") + 4] - 3)
    return {"from": first, "step": CUT_STEP,
            "sha256": [result(io.BytesIO(body[:n]), True).split()[-1][:16] for n in range(first, len(body), CUT_STEP)]}


def main():
    out = sys.argv[1]
    os.makedirs(out, exist_ok=True)
    warnings.simplefilter("ignore")
    expected = {}

    def put(name, body):
        path = os.path.join(out, name)
        with open(path, "wb") as f:
            f.write(body)
        expected[name] = {"strict": result(path, False), "lenient": result(path, True)}

    for make in (jpegs, pngs, bmps, others):
        make(put)
    with open(os.path.join(out, "expected.json"), "w") as f:
        json.dump(expected, f, indent=0, sort_keys=True)
        f.write("\n")
    cuts = {name: cut_scans(os.path.join(out, name)) for name in MANY_SCANS}
    with open(os.path.join(out, "cuts.json"), "w") as f:
        json.dump(cuts, f, indent=0, sort_keys=True)
        f.write("\n")


main()
