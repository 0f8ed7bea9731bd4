#!/usr/bin/env python3
"""licences.py LICENSES [--bom FILE] [--features LIST]: writes the texts of all licences of what is compiled into the program: of the
packages of Rust, as their folders have them, with their notices, and of what some of these carry in C (OpenSSL, librdkafka, …). With
--bom it adds the latter to a bill of materials by cargo-cyclonedx, which knows packages of Rust only.

Fails where a package that compiles C is not known here, or one has neither a text nor a licence whose text is known. Which licences
are taken at all, tests/it/tidy.rs says. Needs cargo with the packages fetched, and Python alone."""

import argparse
import json
import pathlib
import re
import subprocess

HERE = pathlib.Path(__file__).parent.parent
# Package: what it carries, who makes it, its licence, where its version stands (default: behind the + of the package's own), its text.
CARRIED = {
    "openssl-src": ("openssl", "openssl", "Apache-2.0", None, "openssl/LICENSE.txt"),
    "rdkafka-sys": ("librdkafka", "confluent", "BSD-2-Clause", None, "librdkafka/LICENSES.txt"),
    "zstd-sys": ("zstandard", "facebook", "BSD-3-Clause", None, "zstd/LICENSE"),
    "libz-sys": ("zlib", "zlib", "Zlib", ("src/zlib/zlib.h", r'ZLIB_VERSION "([\d.]+)"'), "src/zlib/LICENSE"),
    "libsqlite3-sys": ("sqlite", "sqlite", "blessing", ("sqlite3/sqlite3.h", r'SQLITE_VERSION +"([\d.]+)"'), None),
    "libmimalloc-sys": ("mimalloc", "microsoft", "MIT", ("c_src/mimalloc/v3/include/mimalloc.h", r"MI_MALLOC_VERSION (\d+)"),
                        "c_src/mimalloc/v3/LICENSE"),
}
# These compile C of their own, under the package's licence, or link what another one carries.
OWN = {"esaxx-rs", "openssl-sys"}
TEXT = re.compile(r"(licen[cs]es?|copying|copyright|notice|unlicense)", re.IGNORECASE)
# For packages that name a licence and bring no text.
MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the
"Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish,
distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to
the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY
CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE
SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""
LINE = "-" * 80
# What images are made for.
MACHINES = ("x86_64", "aarch64")


def cargo(*words):
    return subprocess.run(["cargo", *words, "--locked"], check=True, capture_output=True, text=True, cwd=HERE).stdout


def compiled(features):
    """The packages of Rust that are compiled in, by name and version; `Cargo.lock` has more, for other systems and for tests."""
    targets = [word for machine in MACHINES for word in ("--target", f"{machine}-unknown-linux-gnu")]
    tree = cargo("tree", "--edges", "normal", *targets, "--prefix", "none", "--format", "{p}", "--features", features)
    return {tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}


def texts(package):
    """The texts in a package's folder; where there is none, its licence's own."""
    folder = pathlib.Path(package["manifest_path"]).parent
    places = sorted(place for place in folder.iterdir() if TEXT.match(place.name))
    files = [file for place in places for file in (sorted(place.iterdir()) if place.is_dir() else [place])]
    files = [file for file in files if file.is_file() and file.suffix not in (".rs", ".toml")]
    found = [file.read_text(errors="replace").strip() for file in files]
    if any(file.name.lower()[:6] != "notice" for file in files):
        return found
    if "Apache-2.0" in (package["license"] or ""):
        return found + [(HERE / "LICENSE").read_text().strip()]
    assert package["license"] == "MIT", f"{package['name']} {package['version']} brings no text of {package['license']}"
    return found + [f"Copyright (c) {', '.join(package['authors']) or 'the authors of ' + package['name']}\n\n{MIT}"]


def carried(packages, wanted):
    """What is compiled from C: name, version, maker, licence, package, text."""
    compiles = {name for name, package in packages.items() if (name, f"v{package['version']}") in wanted
                and any(need["name"] in ("cc", "cmake") and need["kind"] == "build" for need in package["dependencies"])}
    unknown = compiles - set(CARRIED) - OWN
    assert not unknown, f"{', '.join(sorted(unknown))}: what they carry has no text here yet: add it to {__file__}"
    for name, (product, maker, licence, place, text) in CARRIED.items():
        package = packages[name]
        folder = pathlib.Path(package["manifest_path"]).parent
        if place:
            version = re.search(place[1], (folder / place[0]).read_text(errors="replace")).group(1)
            if version.isdigit():  # 30302: the last two are two digits each
                version = f"{int(version[:-4])}.{int(version[-4:-2])}.{int(version[-2:])}"
        else:
            version = re.search(r"\+(?:\w*\.)?(\d+\.\d+\.\d+)$", package["version"]).group(1)
        words = (folder / text).read_text(errors="replace").strip() if text else "Its authors disclaim copyright to it: public domain."
        yield product, version, maker, licence, f"{name} {package['version']}", words


def completed(bom, parts):
    """Adds what is compiled from C to the bill, and takes this checkout's folder out of it."""
    bill = json.loads(bom.read_text().replace(f"path+file://{pathlib.Path.cwd()}", "path+file:///src"))
    for product, version, maker, licence, _, _ in parts:
        purl = f"pkg:generic/{product}@{version}"
        bill["components"].append({
            "type": "library", "bom-ref": purl, "name": product, "version": version, "scope": "required", "purl": purl,
            "licenses": [{"license": {"id": licence}}], "cpe": f"cpe:2.3:a:{maker}:{product}:{version}:*:*:*:*:*:*:*"})
    bom.write_text(json.dumps(bill, indent=2, ensure_ascii=False) + "\n")


def main():
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("licences", type=pathlib.Path)
    given.add_argument("--bom", type=pathlib.Path)
    given.add_argument("--features", default="")
    given = given.parse_args()
    wanted = compiled(given.features)
    packages = json.loads(cargo("metadata", "--format-version", "1", "--features", given.features))["packages"]
    who = {}
    for package in packages:
        if (package["name"], f"v{package['version']}") in wanted and package["source"]:
            for text in texts(package):
                who.setdefault(text, []).append(f"{package['name']} {package['version']} ({package['license']})")
    parts = list(carried({package["name"]: package for package in packages}, wanted))
    out = ["Licences of the software inside tidemill\n" + "=" * 40 + "\n\nWhat is compiled from C comes first, then the packages of Rust."]
    out += [f"{LINE}\n{product} {version} ({licence}), in {package}\n\n{text}" for product, version, _, licence, package, text in parts]
    out += [f"{LINE}\n{'; '.join(names)}\n\n{text}" for text, names in sorted(who.items(), key=lambda entry: entry[1])]
    given.licences.write_text("\n\n".join(out) + "\n")
    if given.bom:
        completed(given.bom, parts)
    named = {name for names in who.values() for name in names}
    print(f"licences: {len(named)} packages of Rust and {len(parts)} of C, {len(out) - 1} texts in {given.licences}")


main()
