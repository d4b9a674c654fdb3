#!/usr/bin/env python3
"""How fast Python takes pictures into a training batch: the counterpart of `blip2 bench data`.

  scripts/bench_pillow.py --images DIR [--count N] [--size 224] [--json]

One thread: open and decode with Pillow, random resized crop (bicubic), mirror, to float32, normalise. With torch and
torchvision the transforms are theirs, as in LAVIS; without them NumPy does the same. Files are read into memory first.
Needs Pillow and NumPy. --enlarge WxH writes every picture in that size (quality 90, 4:2:0) to --out and measures
nothing, to have pictures of the size that training sets hold.
"""
import argparse
import glob
import io
import json
import math
import os
import random
import time

import numpy as np
import PIL
from PIL import Image, features

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def torch_transform(size):
    import torch
    from torchvision import transforms
    from torchvision.transforms.functional import InterpolationMode

    torch.set_num_threads(1)
    torch.manual_seed(1)
    return transforms.Compose([
        transforms.RandomResizedCrop(size, scale=(0.5, 1.0), interpolation=InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(MEAN, STD)])


def numpy_transform(size):
    mean, std = (np.array(v, np.float32)[:, None, None] for v in (MEAN, STD))

    def box(w, h):
        for _ in range(10):
            area = w * h * random.uniform(0.5, 1)
            ratio = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
            bw, bh = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < bw <= w and 0 < bh <= h:
                left, top = random.randint(0, w - bw), random.randint(0, h - bh)
                return left, top, left + bw, top + bh
        return 0, 0, w, h

    def transform(im):
        im = im.crop(box(*im.size)).resize((size, size), Image.Resampling.BICUBIC)
        if random.random() < 0.5:
            im = im.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        a = np.ascontiguousarray(np.asarray(im).transpose(2, 0, 1)).astype(np.float32)
        a /= 255
        a -= mean
        a /= std
        return a

    return transform


def enlarge(files, size, out):
    os.makedirs(out, exist_ok=True)
    for i, name in enumerate(files):
        im = Image.open(name).convert("RGB").resize(size, Image.Resampling.LANCZOS)
        im.save(os.path.join(out, f"{i:05d}.jpg"), "JPEG", quality=90, subsampling="4:2:0")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--images", required=True, help="folder of pictures")
    p.add_argument("--count", type=int, default=0, help="pictures per measurement; 0 is all of them")
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--numpy", action="store_true", help="do not use torch and torchvision")
    p.add_argument("--json", action="store_true")
    p.add_argument("--enlarge", metavar="WxH")
    p.add_argument("--out", help="folder for --enlarge")
    args = p.parse_args()
    files = sorted(f for f in glob.glob(os.path.join(args.images, "**", "*"), recursive=True)
                   if f.lower().endswith((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".tif", ".tiff", ".webp")))
    if not files:
        p.error(f"{args.images} holds no pictures")
    if args.enlarge:
        if not args.out:
            p.error("--enlarge needs --out")
        return enlarge(files[:args.count or None], tuple(int(v) for v in args.enlarge.split("x")), args.out)
    count = args.count or len(files)
    data = []
    for name in files[:count]:
        with open(name, "rb") as f:
            data.append(f.read())
    random.seed(1)
    way = "numpy"
    transform = numpy_transform(args.size)
    if not args.numpy:
        try:
            transform, way = torch_transform(args.size), "torchvision"
        except ImportError:
            pass

    def opened():
        for i in range(count):
            yield Image.open(io.BytesIO(data[i % len(data)])).convert("RGB")

    def measure(work):
        start, cpu = time.perf_counter(), time.process_time()
        work()
        return time.perf_counter() - start, time.process_time() - cpu

    decode = measure(lambda: [0 for _ in opened()])
    whole = measure(lambda: [0 for im in opened() if transform(im) is None])
    report = {"pictures": count, "transform": way, "pillow": PIL.__version__,
              "libjpeg_turbo": features.version("libjpeg_turbo")}
    for name, (wall, cpu) in (("decode", decode), ("all", whole)):
        report[name] = {"images_per_s": count / wall, "images_per_cpu_s": count / cpu}
    if args.json:
        print(json.dumps(report))
        return
    print(f"{count} pictures, Pillow {report['pillow']}, libjpeg-turbo {report['libjpeg_turbo']}, {way}")
    for name in ("decode", "all"):
        print(f"{name:8} {report[name]['images_per_s']:8.0f} images/s {report[name]['images_per_cpu_s']:8.0f} per CPU second")


main()
