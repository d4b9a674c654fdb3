"""Writes pixels.json: what the image processors of transformers 4.57.6 on Pillow 13 make of small pictures, in levels of
0 to 255, so that a resize may be compared level by level. python pixels.py > pixels.json"""
import base64
import json

import numpy as np
from PIL import Image
from transformers import BlipImageProcessor, CLIPImageProcessor

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def picture(seed, width, height):
    """Smooth colours with an edge and some noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = [x * 255 / max(width - 1, 1), y * 255 / max(height - 1, 1), ((x // 3 + y // 2) % 2) * 255]
    out = np.stack(planes, -1) + rng.integers(-40, 41, (height, width, 3))
    return np.clip(out, 0, 255).astype(np.uint8)


def main():
    cases = []
    for i, (width, height, size, crop) in enumerate([
            (20, 14, 8, False), (14, 20, 8, False), (9, 40, 8, False), (40, 9, 8, False), (5, 5, 8, False), (8, 8, 8, False),
            (7, 33, 8, True), (33, 7, 8, True), (20, 15, 9, True), (15, 20, 9, True), (13, 13, 9, True), (5, 6, 9, True),
            (31, 64, 9, True), (1, 3, 4, True), (3, 1, 4, False), (11, 50, 10, False)]):
        rgb = picture(i, width, height)
        if crop:
            processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size)
        else:
            processor = BlipImageProcessor(size={"height": size, "width": size}, image_mean=MEAN, image_std=STD)
        pixels = processor(Image.fromarray(rgb), return_tensors="np", input_data_format="channels_last").pixel_values[0].astype(np.float64)
        levels = np.rint((pixels * np.array(STD)[:, None, None] + np.array(MEAN)[:, None, None]) * 255)
        cases.append({"width": width, "height": height, "size": size, "crop": crop,
                      "rgb": base64.b64encode(rgb.tobytes()).decode(),
                      "levels": base64.b64encode(levels.astype(np.uint8).tobytes()).decode()})
    print(json.dumps(cases, indent=0))


main()
