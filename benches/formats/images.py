#!/usr/bin/env python3
"""Pillow and the reference processor for `cargo bench --bench formats -- image`: two processes, JPEG bytes to what a ViT reads.

    images.py DIR COUNT

Makes DIR/vit, a small ViT of random weights that takes 224 x 224, and DIR/images.bin: COUNT JPEGs of that size and as many of 640 x 480,
each behind its length (u32, little-endian). Then each line of stdin is `start end`: which of them to prepare. Needs: torch, transformers,
Pillow, numpy.
"""
import io
import pathlib
import struct
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

root, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])
processor = ViTImageProcessorPil(size={"height": 224, "width": 224})
BATCH = 16


def scene(rng, width, height):
    """Waves, an edge and noise: about what a photograph costs a decoder."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(a * x + b * y) + np.where(a * x < b * y, 25, -25) for a, b in rng.uniform(0.02, 0.2, (3, 2))]
    image = np.stack(waves, -1) + rng.normal(0, 5, (height, width, 3))
    out = io.BytesIO()
    Image.fromarray(np.clip(image, 0, 255).astype(np.uint8)).save(out, "JPEG", quality=85)
    return out.getvalue()


def prepare(part):
    """As a team writes it: decode, then the processor on a batch."""
    for at in range(0, len(part), BATCH):
        images = [Image.open(io.BytesIO(data)).convert("RGB") for data in part[at : at + BATCH]]
        processor(images, return_tensors="np")["pixel_values"]
    return len(part)


if __name__ == "__main__":
    rng = np.random.default_rng(7)
    images = [scene(rng, *size) for size in ((224, 224), (640, 480)) for _ in range(count)]
    config = ViTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, image_size=224, patch_size=16)
    ViTForImageClassification(config).save_pretrained(root / "vit")
    processor.save_pretrained(root / "vit")
    (root / "images.bin").write_bytes(b"".join(struct.pack("<I", len(image)) + image for image in images))
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(prepare, [images[:BATCH], images[:BATCH]]))
        print("ready", flush=True)
        for line in sys.stdin:
            start, end = map(int, line.split())
            part = images[start:end]
            half = len(part) // 2
            began = time.perf_counter_ns()
            done = sum(pool.map(prepare, [part[:half], part[half:]]))
            print((time.perf_counter_ns() - began) / done, 0, flush=True)
