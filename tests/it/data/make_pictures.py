#!/usr/bin/env python3
"""Encoded pictures of every kind, and the RGB that transformers' load_image (Pillow) makes of them, or that it refuses.

    pip install pillow numpy transformers
    python tests/it/data/make_pictures.py

Writes pictures.json: `pictures`, each with its bytes, width, height and RGB rows (none where Pillow refuses it), and
`processors`: configurations with the pixels that they give, `[32, 32, 3]` u8. All bytes are in base64.
Made with Pillow 13.0.0 and transformers 5.24.0.
"""
import base64, io, json, pathlib, struct, warnings, zlib

import numpy as np
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from transformers.models.bit.image_processing_pil_bit import BitImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.deit.image_processing_pil_deit import DeiTImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

warnings.simplefilter("ignore")
HERE = pathlib.Path(__file__).resolve().parent
SIDE, rng = 32, np.random.default_rng(20261126)


def scene(width, height, channels=3):
    """Waves and a hard edge."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(channels):
        a, b, c = rng.uniform(0.05, 0.4, 3)
        planes.append(127 + 90 * np.sin(a * x + b * y + 9 * c) + np.where(c * x < b * y, 30, -30))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def encoded(array, format, mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    out = io.BytesIO()
    (image.convert(mode) if mode else image).save(out, format, **options)
    return out.getvalue()


def noise(count):
    return rng.integers(0, 256, count, dtype=np.uint8).tobytes()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(width, height, depth, colour, before=b"", interlaced=False):
    """Noise behind every filter, as a PNG."""
    def rows(width, height):
        length = (width * depth * CHANNELS[colour] + 7) // 8
        return b"".join(bytes([rng.integers(0, 5)]) + noise(length) for _ in range(height if width else 0))
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    data = zlib.compress(b"".join(rows(-(-(width - x) // across), -(-(height - y) // down)) for x, y, across, down in passes))
    if colour == 3 and b"PLTE" not in before:
        before = chunk(b"PLTE", noise(3 * 2 ** depth)) + before
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    half = len(data) // 2
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + chunk(b"IDAT", data[:half]) + chunk(b"IDAT", data[half:])
            + chunk(b"IEND", b""))


def bmp(width, height, bits, size=40, compression=0, masks=(), colours=0, data=None):
    """Noise as a BMP; a negative height is top down."""
    data = data or noise((width * bits + 31) // 32 * 4 * abs(height))
    if size == 12:
        header, step = struct.pack("<IHHHH", 12, width, height, 1, bits), 3
    else:
        header = struct.pack("<IiiHHIIiiII", size, width, height, 1, bits, compression, len(data), 0, 0, colours, 0)
        fields, step = b"".join(struct.pack("<I", mask) for mask in masks), 4
        header += fields[:12] if size == 40 else (fields + bytes(84))[:size - 40]
    palette = noise(step * (colours or 2 ** bits)) if bits <= 8 else b""
    place = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", place + len(data), 0, 0, place) + header + palette + data


def runs(width, height, bits):
    """Runs and literals of a BMP in run lengths."""
    out = b""
    for _ in range(height):
        left = width
        while left:
            count = int(min(left, rng.integers(1, 9)))
            if count < 3 or rng.random() < 0.5:
                out += bytes([count]) + noise(1)
            else:
                length = count if bits == 8 else (count + 1) // 2
                out += bytes([0, count]) + noise(length) + bytes(length % 2)
            left -= count
        out += b"\0\0"
    return out + b"\0\1"


def gif(width, height, bits, screen=None, place=(0, 0), clear=None, interlaced=False, palettes="global"):
    """Noise as a GIF, its codes as they come."""
    root, length, codes, table, current = max(bits, 2), max(bits, 2) + 1, [], {}, None
    codes.append((1 << root, length))
    next = (1 << root) + 2
    for index in rng.integers(0, 1 << bits, width * height).tolist():
        if current is None or (current, index) in table:
            current = index if current is None else table[current, index]
            continue
        codes.append((current, length))
        table[current, index], current = next, index
        length += next == 1 << length
        next += 1
    codes += [(current, length), ((1 << root) + 1, length)]
    bits_, filled = 0, 0
    for code, length in codes:
        bits_ |= code << filled
        filled += length
    data = bits_.to_bytes((filled + 7) // 8, "little")
    blocks = b"".join(bytes([len(data[i:i + 255])]) + data[i:i + 255] for i in range(0, len(data), 255)) + b"\0"
    screen = screen or (width + place[0], height + place[1])
    here = lambda kind: noise(3 << bits) if palettes in (kind, "both") else b""
    flags = lambda kind, more: (0x80 | bits - 1 if palettes in (kind, "both") else 0) | more
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, flags("global", 0), 0, 0) + here("global")
    if clear is not None:
        out += b"\x21\xf9\x04" + struct.pack("<BHBB", 1, 0, clear, 0)
    out += b"," + struct.pack("<HHHHB", *place, width, height, flags("local", 64 * interlaced)) + here("local")
    return out + bytes([root]) + blocks + b";"


PICTURES = {}
for colour, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
    for depth in depths:
        for interlaced in (False, True):
            name = f"png of colour type {colour} with {depth} bits" + (", interlaced" if interlaced else "")
            PICTURES[name] = png(13, 9, depth, colour, interlaced=interlaced)
grey = chunk(b"tRNS", struct.pack(">H", 1))
PICTURES["png, grey of 16 bits, dark"] = encoded(Image.fromarray(np.arange(130, dtype=np.uint16).reshape(10, 13) * 3), "PNG")
PICTURES["png, grey with a transparent level"] = png(13, 9, 8, 0, grey)
PICTURES["png, grey of 16 bits with a transparent level"] = png(13, 9, 16, 0, grey)
PICTURES["png, palette of 20 colours, some transparent"] = png(13, 9, 8, 3, chunk(b"PLTE", noise(60)) + chunk(b"tRNS", b"\xff\0\x80"))
plain = png(13, 9, 8, 2)
damaged = bytearray(plain)
damaged[-40] ^= 1
PICTURES |= {
    "png": plain,
    "png without its end marker": plain[:-12],
    "png without its end marker and the last checksum": plain[:-16],
    "png with half an end marker": plain[:-5],
    "png without zlib's checksum": plain[:-20],
    "png with something behind it": plain + b"something \xff\xd8\xff",
    "png whose last rows are missing": plain[:-60],
    "png whose image data is damaged": bytes(damaged),
    "png with another checksum of its image data": plain[:-13] + b"\0" + plain[-12:],
    "png with another checksum of its header": plain[:32] + b"\0" + plain[33:],
    "png that says a gamma and a profile": png(13, 9, 8, 2, chunk(b"gAMA", struct.pack(">I", 100000)) + chunk(b"sRGB", b"\0")),
    "png with XMP": encoded(scene(13, 9), "PNG", pnginfo=(info := PngInfo(), info.add_itxt("XML:com.adobe.xmp", '<a tiff:Orientation="6"/>'))[0]),
}
for orientation in range(1, 9):
    exif = Image.Exif()
    exif[0x0112] = orientation
    PICTURES[f"png, orientation {orientation}"] = encoded(scene(13, 9), "PNG", exif=exif)
PICTURES["webp, orientation 8"] = encoded(scene(13, 9), "WEBP", lossless=True, exif=exif)
PICTURES["webp with something behind it"] = encoded(scene(13, 9), "WEBP", lossless=True) + b"more"
PICTURES["webp that is cut off"] = encoded(scene(13, 9), "WEBP", lossless=True, exif=exif)[:-9]
frames = {"save_all": True, "append_images": [Image.fromarray(scene(13, 9, 4))], "lossless": True, "exact": True}
PICTURES["webp, animated"] = encoded(scene(13, 9, 4), "WEBP", **frames)
for bits in (1, 4, 8, 16, 24, 32):
    PICTURES[f"bmp with {bits} bits"] = bmp(13, 9, bits)
    PICTURES[f"bmp with {bits} bits, top down"] = bmp(13, -9, bits)
    PICTURES[f"bmp with {bits} bits, version 5"] = bmp(13, 9, bits, 124)
    PICTURES[f"bmp with {bits} bits, OS/2"] = bmp(13, 9, bits, 12)
PICTURES |= {
    "bmp with 8 bits and 5 colours": bmp(13, 9, 8, colours=5),
    "bmp, grey": encoded(scene(13, 9, 1)[..., 0], "BMP"),
    "bmp, black and white": encoded(scene(13, 9, 1)[..., 0], "BMP", mode="1"),
    "bmp, runs of 8 bits": bmp(13, 9, 8, compression=1, data=runs(13, 9, 8)),
    "bmp, runs of 4 bits": bmp(13, 9, 4, compression=2, data=runs(13, 9, 4)),
    "bmp, runs that end early": bmp(13, 9, 8, compression=1, data=runs(13, 8, 8)),
    "bmp, fields 565": bmp(13, 9, 16, compression=3, masks=(0xf800, 0x7e0, 0x1f)),
    "bmp, fields of ABGR": bmp(13, 9, 32, 124, 3, (0xff000000, 0xff0000, 0xff00, 0xff)),
    "bmp, fields of RGBA": bmp(13, 9, 32, 108, 3, (0xff, 0xff00, 0xff0000, 0xff000000)),
    "bmp, fields of nothing known": bmp(13, 9, 32, 108, 3, (1, 2, 4, 8)),
    "bmp with something behind it": bmp(13, 9, 24) + b"more",
    "bmp that is cut off": bmp(13, 9, 24)[:-5],
}
for bits in (1, 2, 4, 8):
    PICTURES[f"gif with {bits} bits"] = gif(13, 9, bits)
    PICTURES[f"gif with {bits} bits, interlaced"] = gif(13, 9, bits, interlaced=True)
whole = gif(13, 9, 4)
PICTURES |= {
    "gif with a palette of its own": gif(13, 9, 4, palettes="both"),
    "gif with only a palette of its own": gif(13, 9, 4, palettes="local"),
    "gif on a larger screen": gif(13, 9, 4, (20, 15), (3, 5)),
    "gif on a larger screen, with a transparent colour": gif(13, 9, 4, (20, 15), (3, 5), clear=7),
    "gif beyond its screen": gif(13, 9, 4, (5, 4), (3, 5)),
    "gif, animated": encoded(scene(13, 9), "GIF", save_all=True, append_images=[Image.fromarray(scene(13, 9)) for _ in range(2)]),
    "gif, grey": encoded(scene(13, 9, 1)[..., 0], "GIF"),
    "gif without its end marker": whole[:-2],
    "gif with something behind it": whole + b"more",
    "gif that is cut off": whole[:-20],
}
photo = encoded(scene(32, 24), "JPEG", quality=95, subsampling=0)
cmyk = encoded(Image.fromarray(scene(24, 24, 4), "CMYK"), "JPEG", quality=95, subsampling=0)
adobe = cmyk.index(b"Adobe")
PICTURES |= {
    "jpeg": photo,
    "jpeg of RGB": encoded(scene(32, 24), "JPEG", quality=95, keep_rgb=True),
    "jpeg with a film behind it": photo + b"\0\0\0\x18ftypmp42\0\0\0\0\xff\xda\0\x08" + noise(80) + b"\xff\xda",
    "jpeg with a film instead of its end marker": photo[:-2] + b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom",
    "jpeg without its end marker": photo[:-2],
    "jpeg with half an end marker": photo[:-1],
    "jpeg that is cut off": photo[:-40],
    "jpeg, progressive": encoded(scene(32, 24), "JPEG", quality=95, subsampling=0, progressive=True),
    "jpeg, cmyk": cmyk,
    "jpeg, cmyk that Adobe did not write": cmyk[:adobe - 4] + cmyk[adobe + 12:],
    "jpeg, ycck": cmyk[:adobe + 11] + b"\2" + cmyk[adobe + 12:],
    "jpeg, orientation 8": encoded(scene(32, 24), "JPEG", quality=95, subsampling=0, exif=exif),
}


def sampled(width, height, sampling, adobe=None):
    """A JPEG whose components have so many samples across and down, each in a scan of its own."""
    most = [max(side) for side in zip(*sampling)]
    tables, scans = b"", b""
    segment = lambda marker, body: bytes([0xff, marker]) + struct.pack(">H", len(body) + 2) + body
    for number, part in enumerate(sampling, 1):
        sides = [-(-length * p // m) for length, p, m in zip((width, height), part, most)]
        grey, place, copied = encoded(scene(*sides, 1)[..., 0], "JPEG", quality=85), 2, b""
        while grey[place + 1] != 0xda:
            end = place + 2 + struct.unpack(">H", grey[place + 2:place + 4])[0]
            copied += grey[place:end] if grey[place + 1] in (0xdb, 0xc4) else b""
            place = end
        tables = tables or copied
        scans += segment(0xda, bytes([1, number, 0, 0, 63, 0])) + grey[place + 10:-2]
    parts = b"".join(bytes([number, across * 16 + down, 0]) for number, (across, down) in enumerate(sampling, 1))
    marker = segment(0xee, b"Adobe\0\x64\0\0\0\0" + bytes([adobe])) if adobe is not None else b""
    frame = segment(0xc0, struct.pack(">BHHB", 8, height, width, len(sampling)) + parts)
    return b"\xff\xd8" + marker + tables + frame + scans + b"\xff\xd9"


for name, sampling, adobe in (
    ("4:4:0", [(1, 2), (1, 1), (1, 1)], None), ("4:1:1", [(4, 1), (1, 1), (1, 1)], None), ("4:2:0", [(2, 2), (1, 1), (1, 1)], None),
    ("4:2:2", [(2, 1), (1, 1), (1, 1)], None), ("4:1:0", [(4, 2), (1, 1), (1, 1)], None), ("mixed", [(2, 2), (2, 1), (1, 2)], None),
    ("RGB by Adobe", [(1, 1)] * 3, 0), ("YCCK with halved colours", [(2, 2), (1, 1), (1, 1), (2, 2)], 2),
    ("CMYK with halved inks", [(2, 2), (1, 1), (1, 1), (2, 2)], 0), ("no whole ratio", [(3, 1), (2, 1), (1, 1)], None),
):
    PICTURES[f"jpeg, {name}"] = sampled(21, 19, sampling, adobe)
for width, height in ((1, 32), (2, 7), (5, 5), (32, 3)):
    PICTURES[f"jpeg of {width} x {height}"] = sampled(width, height, [(2, 2), (1, 1), (1, 1)])
for halved in (1, 2):
    PICTURES[f"jpeg, progressive, halved {halved}"] = encoded(scene(31, 29), "JPEG", quality=80, subsampling=halved, progressive=True)
    PICTURES[f"jpeg with restarts, halved {halved}"] = encoded(scene(31, 29), "JPEG", quality=80, subsampling=halved, restart_marker_blocks=1)

# Where a PNG may say how it is turned: its text chunks too, wherever they stand.
still = encoded((np.arange(13 * 9 * 3) % 251).astype(np.uint8).reshape(9, 13, 3), "PNG")
xmp = lambda o: f'<x:xmpmeta><rdf:Description tiff:Orientation="{o}"/></x:xmpmeta>'.encode()
PACKET, PROFILE = b"XML:com.adobe.xmp", b"Raw profile type exif"


def exif_of(orientation):
    exif = Image.Exif()
    exif[0x0112 if orientation else 0x010f] = orientation or "Canon"
    return exif.tobytes()


def profile(orientation):
    data = exif_of(orientation).hex()
    lines = "\n".join(data[i:i + 72] for i in range(0, len(data), 72))
    return f"\nexif\n{len(data) // 2:8}\n{lines}\n".encode()


def worded(kind, keyword, value):
    """A chunk of text; `iTXt compressed` is one too."""
    if kind == "zTXt":
        return chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(value))
    if kind.startswith("iTXt"):
        packed = kind != "iTXt"
        return chunk(b"iTXt", keyword + bytes([0, packed, 0]) + b"en\0\0" + (zlib.compress(value) if packed else value))
    return chunk(b"tEXt", keyword + b"\0" + value)


TURNED = {
    "EXIF as text": worded("tEXt", b"exif", exif_of(6)),
    "a profile of another name": worded("tEXt", b"Raw profile type APP1", profile(6)),
    "EXIF without it and a profile": chunk(b"eXIf", exif_of(0)[6:]) + worded("tEXt", PROFILE, profile(6)),
    "EXIF without it and XMP": chunk(b"eXIf", exif_of(0)[6:]) + worded("zTXt", PACKET, xmp(6)),
    "a profile before XMP": worded("tEXt", PACKET, xmp(3)) + worded("tEXt", PROFILE, profile(6)),
    "EXIF before a profile": worded("tEXt", PROFILE, profile(3)) + chunk(b"eXIf", exif_of(6)[6:]),
    "two of XMP": worded("iTXt", PACKET, xmp(3)) + worded("tEXt", PACKET, xmp(6)),
    "two of XMP, the first one compressed": worded("iTXt compressed", PACKET, xmp(3)) + worded("iTXt", PACKET, xmp(6)),
    "XMP and an empty one": worded("iTXt", PACKET, xmp(6)) + worded("tEXt", PACKET, b""),
    "XMP that is no UTF-8": worded("iTXt", PACKET, b"\xff" + xmp(6)),
    "XMP that is no UTF-8 beside another": worded("iTXt", PACKET, b"\xff" + xmp(6)) + worded("iTXt", PACKET, xmp(3)),
    "XMP whose compression is damaged": worded("zTXt", PACKET, xmp(3)) + chunk(b"iTXt", PACKET + b"\0\1\0\0\0damaged"),
    "XMP whose compression is damaged, in zTXt": worded("tEXt", PACKET, xmp(3)) + chunk(b"zTXt", PACKET + b"\0\0damaged"),
    "XMP whose compression is cut": chunk(b"zTXt", PACKET + b"\0\0" + zlib.compress(xmp(6))[:-4]),
}
for kind in ("tEXt", "zTXt", "iTXt", "iTXt compressed"):
    for orientation in (3, 6):
        TURNED[f"XMP {orientation} in {kind}"] = worded(kind, PACKET, xmp(orientation))
        TURNED[f"a profile {orientation} in {kind}"] = worded(kind, PROFILE, profile(orientation))
for name, chunks in TURNED.items():
    PICTURES[f"png, {name}"] = still[:33] + chunks + still[33:]
    PICTURES[f"png, {name}, behind"] = still[:-12] + chunks + still[-12:]


def text(data):
    return base64.b64encode(data).decode()


def opened(data):
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


pictures = []
for name, data in PICTURES.items():
    row = {"name": name, "bytes": text(data)}
    try:
        image = opened(data)
        row |= {"width": image.width, "height": image.height, "rgb": text(image.tobytes())}
    except (OSError, ValueError) as error:
        print(f"{name}: {error}")
    pictures.append(row)

# A transparent colour becomes white where `do_convert_rgb` is true.
colours = bytes(range(1, 4)) * 3 + noise(6)
SHOWN = {
    "wide": encoded(scene(301, 9), "PNG"), "tall": encoded(scene(7, 260), "PNG"), "one pixel": encoded(scene(1, 1), "PNG"),
    "square": encoded(scene(48, 48), "PNG"), "transparent": png(13, 9, 2, 3, chunk(b"PLTE", colours) + chunk(b"tRNS", b"\xff\0")),
    "transparent gif": gif(13, 9, 4, clear=3), "transparent grey": png(13, 9, 8, 0, grey),
}
square = {"height": SIDE, "width": SIDE}
PROCESSORS = [({"image_processor_type": "ViTImageProcessor", "size": square, "resample": filter}, ViTImageProcessorPil) for filter in range(6)]
PROCESSORS += [
    ({"size": [SIDE, SIDE]}, ViTImageProcessorPil),
    ({"feature_extractor_type": "ViTFeatureExtractor", "size": SIDE, "do_convert_rgb": True}, ViTImageProcessorPil),
    ({"image_processor_type": "CLIPImageProcessor", "size": 40, "crop_size": SIDE}, CLIPImageProcessorPil),
    ({"feature_extractor_type": "CLIPFeatureExtractor", "size": [21, 50], "crop_size": [SIDE, SIDE], "do_convert_rgb": False}, CLIPImageProcessorPil),
    ({"image_processor_type": "BitImageProcessorFast", "size": {"shortest_edge": 23}, "crop_size": square}, BitImageProcessorPil),
    ({"image_processor_type": "DeiTImageProcessor", "size": 39, "crop_size": SIDE}, DeiTImageProcessorPil),
    ({"do_resize": False, "do_center_crop": True, "crop_size": SIDE}, ViTImageProcessorPil),
]
processors = []
for number, (config, kind) in enumerate(PROCESSORS):
    processor, rows = kind(**config), {}
    for name, data in SHOWN.items():
        if name in (("wide", "square") if 6 <= number else ("one pixel", "transparent", "transparent gif", "transparent grey")):
            continue
        rgb = opened(data)
        pixels = processor(rgb, do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
        assert pixels.dtype == np.uint8 and pixels.shape == (3, SIDE, SIDE), (config, name, pixels.shape)
        rows[name] = text(zlib.compress(pixels.transpose(1, 2, 0).tobytes(), 9))
    value = processor(np.full((SIDE, SIDE, 3), 100, np.uint8), return_tensors="np")["pixel_values"][0, :, SIDE // 2, SIDE // 2]
    processors.append({"config": config, "pixels": rows, "of 100": value.tolist()})
(HERE / "pictures.json").write_text(json.dumps({"pictures": pictures, "shown": {n: text(d) for n, d in SHOWN.items()}, "processors": processors}) + "\n")
