#!/usr/bin/env python3
"""carried.py LICENSES BOM: adds what packages carry as C and compile into the program (OpenSSL, librdkafka, …) to the texts of all
licences and to the bill of materials, which know packages of Rust only. Fails where a package that compiles C is not known here."""

import json
import pathlib
import re
import subprocess
import sys

# Package: what it carries, who makes it, its licence, where its version stands, and where its texts are. Of a package whose texts
# are its own, as Rust's, only the name stands here.
CARRIED = {
    "openssl-src": ("openssl", "openssl", "Apache-2.0", None, ["openssl/LICENSE.txt"]),
    "rdkafka-sys": ("librdkafka", "confluent", "BSD-2-Clause", None, ["librdkafka/LICENSES.txt"]),
    "zstd-sys": ("zstandard", "facebook", "BSD-3-Clause", None, ["zstd/LICENSE"]),
    "libz-sys": ("zlib", "zlib", "Zlib", ("src/zlib/zlib.h", r'ZLIB_VERSION "([\d.]+)"'), ["src/zlib/LICENSE"]),
    "libsqlite3-sys": ("sqlite", "sqlite", "blessing", ("sqlite3/sqlite3.h", r'SQLITE_VERSION +"([\d.]+)"'), []),
    "libmimalloc-sys": ("mimalloc", "microsoft", "MIT", ("c_src/mimalloc/v3/include/mimalloc.h", r"MI_MALLOC_VERSION (\d+)"), ["c_src/mimalloc/v3/LICENSE"]),
}
# They compile C of their own, under the licence of the package, or link what another one carries.
OWN = {"esaxx-rs", "openssl-sys"}

licences, bom = (pathlib.Path(name) for name in sys.argv[1:])
done = subprocess.run(["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"],
                      check=True, capture_output=True, text=True)
packages = {package["name"]: package for package in json.loads(done.stdout)["packages"]}
compiles = {name for name, package in packages.items()
            if any(need["name"] in ("cc", "cmake") and need["kind"] == "build" for need in package["dependencies"])}
unknown = compiles - set(CARRIED) - OWN
assert not unknown, f"{', '.join(sorted(unknown))}: what they carry stands neither in LICENSES nor in the bill: add it to {__file__}"

texts, components = [], []
for name, (product, vendor, licence, place, files) in CARRIED.items():
    folder = pathlib.Path(packages[name]["manifest_path"]).parent
    if place:
        version = re.search(place[1], (folder / place[0]).read_text(errors="replace")).group(1)
        if version.isdigit():  # 30302: a digit or more, and two each
            version = f"{int(version[:-4])}.{int(version[-4:-2])}.{int(version[-2:])}"
    else:
        version = re.search(r"\+(?:\w*\.)?(\d+\.\d+\.\d+)$", packages[name]["version"]).group(1)
    said = licence if files else "public domain"
    body = "\n\n".join((folder / file).read_text(errors="replace").strip() for file in files) or "The author disclaims copyright to this source code."
    texts.append(f"{'-' * 80}\n{product} {version} ({said}), compiled from what {name} {packages[name]['version']} carries.\n\n{body}\n")
    components.append({
        "type": "library", "bom-ref": f"pkg:generic/{product}@{version}", "name": product, "version": version, "scope": "required",
        "licenses": [{"license": {"id": licence}}], "purl": f"pkg:generic/{product}@{version}",
        "cpe": f"cpe:2.3:a:{vendor}:{product}:{version}:*:*:*:*:*:*:*"})
licences.write_text(licences.read_text() + "\n" + "\n".join(texts))
# The folder of this checkout is nobody's business.
here = f"path+file://{pathlib.Path.cwd()}"
bill = json.loads(bom.read_text().replace(here, "path+file:///src"))
bill["components"] += components
bom.write_text(json.dumps(bill, indent=2, ensure_ascii=False) + "\n")
