#!/usr/bin/env python3
"""Golden numbers of transformers for image models: ViTForImageClassification behind the Pillow image processors.

    pip install torch transformers pillow
    python tests/it/data/make_images.py

Writes tiny-vit/ (a random-weight checkpoint, preprocessor_config.json and golden.json as `tidemill predict` prints it)
and pixels.json: images, processor configurations and the pixels that they give, `[height, width, 3]` u8, all in base64.
Made with transformers 5.24.0, torch 2.15.0, Pillow 13.0.0 (libjpeg-turbo, libwebp 1.6.0).
"""
import base64, io, json, pathlib, shutil

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import ViTConfig, ViTForImageClassification
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

HERE = pathlib.Path(__file__).resolve().parent
SIDE, rng = 32, np.random.default_rng(20261124)


def dump(path, value):
    path.write_text(json.dumps(value) + "\n")


def scene(width, height, channels=3):
    """Soft waves, a hard edge and some noise: what resizing and a JPEG treat differently."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(channels):
        a, b, c = rng.uniform(0.02, 0.25, 3)
        wave = 127 + 90 * np.sin(a * x + b * y + 9 * c) + np.where(c * x < b * y, 30, -30)
        planes.append(wave + rng.normal(0, 6, x.shape))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def encoded(array, format, mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image = image.convert(mode) if mode else image
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


turned = Image.Exif()
turned[0x0112] = 6
wide16 = (scene(40, 30).astype(np.uint16) << 8) | rng.integers(0, 256, (30, 40, 3), dtype=np.uint16)


def png16(array):
    """A PNG with 16 bits a channel: Pillow reads it, but does not write it."""
    import struct, zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    height, width, _ = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


IMAGES = {
    "png": encoded(scene(48, 40), "PNG"),
    "png of the model's size": encoded(scene(32, 32), "PNG"),
    "png with alpha": encoded(scene(50, 37, 4), "PNG"),
    "png, grey": encoded(scene(33, 45, 1)[..., 0], "PNG"),
    "png, grey with alpha": encoded(scene(33, 45, 2), "PNG"),
    "png, palette": encoded(Image.fromarray(scene(40, 40)).quantize(16), "PNG"),
    "png, palette with a transparent colour": encoded(Image.fromarray(scene(40, 40)).quantize(16), "PNG", transparency=3),
    "png, one bit": encoded(scene(60, 44, 1)[..., 0], "PNG", mode="1"),
    "png, 16 bit": png16(wide16),
    "png, one pixel wide": encoded(scene(1, 77), "PNG"),
    "png, 1 x 1": encoded(np.array([[[200, 30, 90]]], dtype=np.uint8), "PNG"),
    "png, wide": encoded(scene(301, 9), "PNG"),
    "png, tall": encoded(scene(7, 260), "PNG"),
    "webp": encoded(scene(45, 61), "WEBP", lossless=True),
    "webp with alpha": encoded(scene(20, 24, 4), "WEBP", lossless=True, exact=True),
    "webp, lossy": encoded(scene(64, 48), "WEBP", quality=80),
    "jpeg": encoded(scene(96, 64), "JPEG", quality=90),
    "jpeg, 4:4:4": encoded(scene(64, 64), "JPEG", quality=90, subsampling=0),
    "jpeg, 4:2:2 of odd size": encoded(scene(51, 39), "JPEG", quality=85, subsampling=1),
    "jpeg, progressive": encoded(scene(70, 50), "JPEG", quality=75, progressive=True),
    "jpeg, grey": encoded(scene(40, 56, 1)[..., 0], "JPEG", quality=90),
    "jpeg, cmyk": encoded(Image.fromarray(scene(40, 40, 4), "CMYK"), "JPEG", quality=90),
    "jpeg, orientation 6": encoded(scene(64, 40), "JPEG", quality=90, exif=turned),
}


def text(data):
    return base64.b64encode(data).decode()


def opened(data):
    """As transformers' load_image opens it: upright, in RGB without transparency."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


torch.manual_seed(20261124)
labels = ["cat", "dog", "tide mill"]
model = ViTForImageClassification(ViTConfig(
    image_size=SIDE, patch_size=8, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=80,
    id2label=dict(enumerate(labels)), label2id={v: k for k, v in enumerate(labels)})).eval()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        parameter.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.2)
processor = ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}, image_mean=[0.48, 0.45, 0.41], image_std=[0.27, 0.26, 0.28])

out = HERE / "tiny-vit"
shutil.rmtree(out, ignore_errors=True)
out.mkdir()
model.save_pretrained(out, safe_serialization=True)
(out / "model.safetensors").chmod(0o644)
processor.save_pretrained(out)
golden = []
for name, data in IMAGES.items():
    with torch.no_grad():
        scores = model(**processor(opened(data), return_tensors="pt")).logits[0].softmax(-1)
    best = int(scores.argmax())
    golden.append({"name": name, "input": {"image": text(data)}, "output": {
        "label": labels[best], "score": float(scores[best]), "scores": dict(zip(labels, scores.tolist()))}})
    print(f"{name:40} {len(data):6} bytes", [round(s, 4) for s in scores.tolist()])
dump(out / "golden.json", golden)

square = {"height": SIDE, "width": SIDE}
PROCESSORS = [ViTImageProcessorPil(size=square, resample=resample) for resample in (0, 2, 3)]
PROCESSORS += [CLIPImageProcessorPil(size=size, resample=resample, do_center_crop=True, crop_size=square) for size, resample in [
    ({"shortest_edge": 32}, 3), ({"shortest_edge": 41}, 2), ({"height": 37, "width": 48}, 3)]]
rows = []
for number, processor in enumerate(PROCESSORS):
    for name, data in IMAGES.items():
        if number not in (1, 3) and name not in ("png", "png, wide", "png, tall", "png, 1 x 1"):
            continue
        pixels = processor(opened(data), do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        assert pixels.dtype == np.uint8 and pixels.shape == (3, SIDE, SIDE)
        rows.append({"name": name, "config": number, "pixels": text(pixels.transpose(1, 2, 0).tobytes())})
configs = [json.loads(processor.to_json_string()) for processor in PROCESSORS]
dump(HERE / "pixels.json", {"configs": configs, "images": {name: text(data) for name, data in IMAGES.items()}, "rows": rows})
