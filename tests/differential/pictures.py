"""Folders of image classifiers, and pictures of every kind that Pillow opens."""
import base64
import io

import numpy as np
import torch
from PIL import Image

from text_models import dump, labels, missing, randomise, resave, store, write_labels


def picture(rng, small=False):
    """A picture's bytes, and what it is."""
    noise = np.random.default_rng(rng.randrange(1 << 32))
    width, height = rng.choice([(48, 40), (33, 57), (32, 32), (16, 16), (90, 20), (5, 70), (1, 1), (100, 100), (200, 30)][:7 if small else None])
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = [np.sin(x * noise.uniform(1, 20) + y * noise.uniform(1, 20) + noise.uniform(0, 6)) for _ in range(4)]
    colour = np.clip(np.stack(waves, -1) * 110 + 128 + noise.normal(0, 12, (height, width, 4)), 0, 255).astype(np.uint8)
    whole = Image.fromarray(colour[..., :3])
    alpha = Image.fromarray(colour)
    kind = rng.choice(["jpeg", "jpeg grey", "jpeg progressive", "jpeg 4:4:4", "jpeg cmyk", "jpeg exif", "jpeg trailing", "jpeg optimised", "png", "png grey", "png grey alpha", "png alpha", "png palette", "png palette transparent", "png 16-bit grey",
                       "png 1-bit", "png grey transparent", "png interlaced", "png trailing", "png no end", "png 16-bit", "webp", "webp lossless", "webp alpha", "gif", "gif transparent", "gif animated", "bmp", "bmp palette", "bmp 1-bit", "tiff", "png animated", "webp animated", "png exif", "cut jpeg", "cut png", "not a picture"])
    out = io.BytesIO()
    save = lambda image, format, **how: image.save(out, format, **how)
    if kind == "jpeg exif":
        exif = Image.Exif()
        exif[0x0112] = rng.choice([3, 6, 8, 2, 5])
        save(whole, "JPEG", exif=exif)
    elif kind == "png exif":
        exif = Image.Exif()
        exif[0x0112] = 6
        save(whole, "PNG", exif=exif)
    elif kind == "jpeg cmyk":
        save(whole.convert("CMYK"), "JPEG")
    elif kind.startswith(("jpeg", "cut jpeg")):
        save(whole.convert("L") if "grey" in kind else whole, "JPEG", quality=rng.choice([30, 75, 95, 100]), progressive="progressive" in kind, subsampling=0 if "4:4:4" in kind else rng.choice([1, 2]), optimize="optimised" in kind)
    elif kind == "png 16-bit":
        return raw_png(colour, 16), kind
    elif kind == "png interlaced":
        return raw_png(colour, 8, interlaced=True), kind
    elif kind == "png animated":
        save(whole, "PNG", save_all=True, append_images=[whole.rotate(180)])
    elif kind.startswith(("png", "cut png")):
        image = {"png grey": lambda: whole.convert("L"), "png grey alpha": lambda: alpha.convert("LA"), "png alpha": lambda: alpha, "png palette": lambda: whole.convert("P", palette=Image.Palette.ADAPTIVE, colors=rng.choice([3, 16, 200])),
                 "png palette transparent": lambda: whole.convert("P", palette=Image.Palette.ADAPTIVE, colors=16), "png 16-bit grey": lambda: Image.fromarray((colour[..., 0].astype(np.uint16) * rng.choice([1, 3, 257]))),
                 "png 1-bit": lambda: whole.convert("1"), "png grey transparent": lambda: whole.convert("L")}.get(kind, lambda: whole)()
        save(image, "PNG", **({"transparency": 3} if "transparent" in kind else {}))
    elif kind.startswith("webp"):
        save(alpha if "alpha" in kind else whole, "WEBP", lossless="lossless" in kind, **({"save_all": True, "append_images": [whole.rotate(180)]} if "animated" in kind else {}))
    elif kind.startswith("gif"):
        save(whole.convert("P", palette=Image.Palette.ADAPTIVE), "GIF", **({"transparency": 2} if "transparent" in kind else {}), **({"save_all": True, "append_images": [whole.rotate(180)]} if "animated" in kind else {}))
    elif kind.startswith("bmp"):
        save(whole.convert("P") if "palette" in kind else whole.convert("1") if "1-bit" in kind else whole, "BMP")
    elif kind == "tiff":
        save(whole, "TIFF")
    else:
        return b"GIF89a no", kind
    data = out.getvalue()
    if "trailing" in kind:
        data += b"trailing data " * 9
    if kind == "png no end":
        data = data[:-12]
    if kind.startswith("cut"):
        data = data[:len(data) * 2 // 3]
    return data, kind


def raw_png(colour, bits, interlaced=False):
    """A PNG as Pillow does not write it: 16 bits a channel, or Adam7."""
    import struct
    import zlib
    height, width = colour.shape[:2]
    pixels = colour[..., :3]
    values = (pixels.astype(">u2") * 257 + 41 if bits == 16 else pixels)
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in values[y::dy, x::dx] if row.size)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, int(interlaced))) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def image(o, folder, small):
    from transformers import ViTConfig, ViTForImageClassification
    side, patch = o("image_size", 32, 16, 48), o("patch_size", 8, 16, 4)
    count, kind, named = labels(o)
    config = ViTConfig(hidden_size=o("hidden", 8 if small else 16, 24), num_hidden_layers=o("layers", 1, 2), num_attention_heads=o("heads", 2, 1, 4), intermediate_size=20, image_size=side, patch_size=patch, num_labels=count,
                       hidden_act=o("hidden_act", "gelu", "relu", "gelu_new", "quick_gelu", "gelu_pytorch_tanh", "silu"), layer_norm_eps=o("layer_norm_eps", 1e-12, 1e-6, 0.1), qkv_bias=o("qkv_bias", True, False),
                       problem_type=o("problem_type", None, "single_label_classification", "multi_label_classification"), num_channels=o("num_channels", 3, 1, rate=o.rate / 3))
    model = randomise(ViTForImageClassification(config), o.seed)
    store(o, folder, model, "vit", model.config)
    write_labels(folder, kind, named)
    # preprocessor_config.json: everything may be absent.
    keys = {"do_resize": True, "size": {"height": side, "width": side}, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "image_processor_type": "ViTImageProcessor"}
    keys["size"] = o("size", keys["size"], side, [side, side], {"shortest_edge": side}, {"width": side, "height": side}, {"height": side, "width": side + 16}, {"longest_edge": side}, {"max_height": side, "max_width": side}, {"height": side + 8, "width": side + 8}, str(side))
    keys["resample"] = o("resample", 2, 0, 1, 3, 4, 5, None, "bilinear")
    keys["image_mean"] = o("image_mean", keys["image_mean"], [0.485, 0.456, 0.406], 0.4, [0.4], None, [0.0, 0.0, 0.0])
    keys["image_std"] = o("image_std", keys["image_std"], [0.229, 0.224, 0.225], 0.3, None, [1.0, 1.0, 1.0])
    keys["rescale_factor"] = o("rescale_factor", keys["rescale_factor"], 1 / 127.5, 1.0, 0.00392156862745098, None)
    for name in ("do_rescale", "do_normalize", "do_resize"):
        keys[name] = o(name, True, False, None)
    crop = o("crop", {}, {"do_center_crop": True, "crop_size": {"height": side, "width": side}}, {"do_center_crop": True, "crop_size": side}, {"do_center_crop": False, "crop_size": 99}, {"do_center_crop": True})
    if crop.get("do_center_crop"):
        keys["size"] = o("size before crop", {"shortest_edge": side + 8}, side + 8, {"height": side + 8, "width": side + 4}, {"height": side - 8, "width": side - 8})
    keys |= crop
    keys["image_processor_type"] = o("image_processor_type", "ViTImageProcessor", "ViTFeatureExtractor", "ViTImageProcessorFast", "CLIPImageProcessor", "DeiTImageProcessor", "BitImageProcessor", "CLIPFeatureExtractor", "ConvNextImageProcessor", "absent", "ViTImageProcessorPil", "MyOwnProcessor", "SiglipImageProcessor",
                                     rate=max(o.rate, 0.15))
    if keys["image_processor_type"] == "absent":
        del keys["image_processor_type"]
    if o("feature_extractor_type", False, True):
        keys["feature_extractor_type"] = "ViTFeatureExtractor"
    keys |= o("preprocessor_config with", {}, {"do_convert_rgb": True}, {"do_convert_rgb": False}, {"do_convert_rgb": None}, {"do_pad": True}, {"do_flip_channel_order": True}, {"do_reduce_labels": True}, {"use_square_size": True}, {"data_format": "channels_first"}, {"input_data_format": "channels_last"},
              {"crop_pct": 0.9}, {"offset": True}, {"do_thumbnail": True}, {"interpolation": "bicubic"}, {"return_tensors": "pt"}, {"_processor_class": None}, {"do_grayscale": True}, {"size_divisor": 16})
    drop = o("preprocessor_config without", None, "do_resize", "size", "resample", "do_rescale", "rescale_factor", "do_normalize", "image_mean", "image_std")
    keys.pop(drop, None)
    if o("preprocessor_config.json", "preprocessor_config.json", "processor_config.json", "absent", rate=o.rate / 4) != "absent":
        name = o("preprocessor_config.json", "preprocessor_config.json", "processor_config.json", "absent", rate=o.rate / 4)
        dump(folder / name, keys if name == "preprocessor_config.json" else {"image_processor": keys, "processor_class": "ViTProcessor"})
    rng = o.rng("pictures")
    inputs, kinds = [], []
    for _ in range(4 if small else 8):
        data, kind = picture(rng, small)
        code = base64.b64encode(data).decode()
        how = rng.choice(["plain"] * 6 + ["lines", "data uri", "final newline"])
        code = {"plain": code, "lines": base64.encodebytes(data).decode(), "data uri": "data:image/png;base64," + code, "final newline": code + "\n"}[how]
        inputs.append({"text": code})
        kinds.append(kind if how == "plain" else f"{kind} ({how})")

    def load():
        from transformers import pipeline
        return pipeline("image-classification", model=str(folder), device="cpu", dtype=torch.float32)
    resave(o, folder, load)

    def reference():
        missing.clear()
        pipe = load()

        def answer(value):
            got = pipe(value["text"], top_k=count)
            return {"scores": [[g["label"], g["score"]] for g in got]}
        return answer
    image.kinds = kinds
    return inputs, reference, [], lambda name: False
