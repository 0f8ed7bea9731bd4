#!/usr/bin/env python3
"""Random small model folders: the reference library's answers against those of `tidemill predict`.

Each folder is made from a seed by options that are drawn (see draw.py). A folder whose answers differ, or that is refused, is
made again with one option after another switched back to its default, until only those are left that make the difference;
later folders with the same options are counted to the same cause. Exit code: 1 where an answer differs.

    ok            every answer is the reference's, within the tolerance
    wrong         an answer is another one                                     ← the ones to mend
    unreferenced  the reference cannot load the folder, and Tidemill answers   ← to be judged
    invented      tensors are missing, the reference makes random ones up, and Tidemill answers
    refused       Tidemill refuses the folder, by its message
    error         Tidemill refuses an input that the reference answers
    imprecise     tabular: within 1e-5, beyond 1e-9
    skipped       neither can load it

Where the reference refuses a key that says nothing (a null, mostly), its answer is that to the folder that is meant: see `mean`.
"""
import argparse
import collections
import json
import logging
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import warnings  # noqa: E402

warnings.simplefilter("ignore")
import torch  # noqa: E402

torch.set_num_threads(1)
logging.disable(logging.WARNING)

import pictures  # noqa: E402
import tables  # noqa: E402
import text_models  # noqa: E402
from draw import DEFAULT, Options  # noqa: E402
from text_models import each, missing  # noqa: E402

KINDS = {"embed": (text_models.embed, 6), "classify": (text_models.classify, 2), "spans": (text_models.spans, 2), "pair": (text_models.pair, 2), "image": (pictures.image, 3), "table": (tables.table, 3)}
CLOSE = 2e-4
PICTURES = 1e-3  # these models are small: much comes of little
ANNOUNCED = "a TIFF; only JPEG, PNG, WebP, GIF and BMP are read"  # Pillow opens more; the documentation says which we do
FAILS = ("wrong", "unreferenced", "invented", "imprecise")


def mean(model):
    """Rewrites a folder that the reference refuses as one that says the same and that it may load."""
    for path in [*model.rglob("config.json"), *model.glob("*processor_config.json")]:
        written = json.loads(path.read_text())
        for keys in (written, written.get("image_processor", {})):
            # A null says nothing; but of what is done to a picture it is false, and of a padding token that there is none, which RoBERTa's family wants.
            said = {k: v for k, v in keys.items() if v is None and (k.startswith("do_") or k == "pad_token_id" and "roberta" not in str(keys.get("model_type")) and keys.get("model_type") != "camembert")}
            meant = {k: v for k, v in keys.items() if v is not None} | said
            if keys.get("id2label") is None and isinstance(keys.get("label2id"), dict):
                meant["id2label"] = {str(n): f"LABEL_{n}" for n in range(len(keys["label2id"]))}
                del meant["label2id"]
            if str(keys.get("image_processor_type")).endswith("FeatureExtractor"):
                meant["image_processor_type"] = keys["image_processor_type"].replace("FeatureExtractor", "ImageProcessor")  # as transformers 4 read it
            meant.pop("add_cross_attention", None)  # nothing attends to another sequence in an encoder
            meant.pop("return_dict", None)  # of the library's own structures
            keys.clear()
            keys.update(meant)
        path.write_text(json.dumps(written))


class Verdict:
    def __init__(self, status, message="", detail="", o=None, folder=None, expected=None, inputs=None, args=None, parts=None):
        self.status, self.message, self.detail, self.o, self.folder = status, message, detail, o, folder
        self.expected, self.inputs, self.args, self.parts = expected, inputs, args, parts or []

    def key(self):
        return self.status, self.message


def normal(message):
    """A message without what differs from folder to folder."""
    message = re.sub(r"/tmp/\S*/", "", message.strip().splitlines()[-1] if message.strip() else "")
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", message)[:220]


def numbers(expected, found, close, least=1e-3):
    """Whether two lists of numbers are the same, and how far they are apart, of the largest or of `least`."""
    if len(expected) != len(found):
        return f"{len(found)} numbers, not {len(expected)}"
    if any(not math.isfinite(e) for e in expected):
        return None
    scale = max([least, *map(abs, expected)])
    far = max([abs(e - f) for e, f in zip(expected, found)] or [0.0])
    return None if far <= close * scale else f"off by {far / scale:.1e} of {scale:.3g}"


def compare(expected, line, close):
    """None where the answer is the expected one; else what is wrong with it, `error: …` where it is a refusal."""
    if "note" in expected:
        return None
    pairs = json.loads(line, object_pairs_hook=lambda p: ("pairs", p))[1]
    found = dict(pairs)
    finite = lambda values: all(math.isfinite(v) for v in values)
    if "error" in found:
        values = expected.get("embedding") or [v for _, v in expected.get("scores", [])] or [expected.get("value", 0.0)]
        said = str(found["error"] if isinstance(found["error"], str) else dict(found["error"][1]).get("message", found["error"]))
        return None if not finite(values) or ANNOUNCED in said else "error: " + said
    if "embedding" in expected:
        return numbers(expected["embedding"], found["embedding"], close) if "embedding" in found else f"answers {sorted(found)}, not an embedding"
    share = 0.05 if close > 1e-6 else 1e-3  # of scores, which are shares of 1: a small one's error is that of the others
    if "value" in expected:
        value = found.get("value", found.get("score"))
        return numbers([expected["value"]], [value], close) if value is not None else f"answers {sorted(found)}, not a value"
    if "spans" in expected:
        if "spans" not in found:
            return f"answers {sorted(found)}, not spans"
        spans = [dict(s[1]) for s in found["spans"]]
        place = lambda s: (str(s["label"]), s["start"], s["end"])
        if [place(s) for s in spans] != [place(s) for s in expected["spans"]]:
            return f"spans {[place(s) for s in spans][:6]}, not {[place(s) for s in expected['spans']][:6]}"
        return numbers([s["score"] for s in expected["spans"]], [s["score"] for s in spans], max(close, 1e-3))
    wanted = [(label if isinstance(label, str) else json.dumps(label), score) for label, score in expected["scores"]]  # id2label may have numbers
    if "scores" not in found:
        value = found.get("score", found.get("value"))
        if len(wanted) == 1 and isinstance(value, float):
            return numbers([wanted[0][1]], [value], close, share)
        return f"answers {sorted(found)}, not scores"
    got = found["scores"][1]
    if len({k for k, _ in got}) != len(got):
        return "scores with a label twice"
    if len({k for k, _ in wanted}) == len(wanted):
        if {k for k, _ in got} != {k for k, _ in wanted}:
            return f"labels {[k for k, _ in got]}, not {[k for k, _ in wanted]}"
        got = dict(got)
        return numbers([v for _, v in wanted], [got[k] for k, _ in wanted], close, share)
    return numbers(sorted(v for _, v in wanted), sorted(v for _, v in got), close, share)


class Differential:
    def __init__(self, args):
        self.args = args
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="differential-"))
        self.times = collections.Counter()

    def close(self, kind):
        """How close an answer must be, as a part of its largest number."""
        return self.args.table_close if kind == "table" else PICTURES if kind == "image" else CLOSE

    def folder(self, kind, seed, forced=None, small=False, rate=None, keep=None):
        """Makes one folder, asks both sides, and judges."""
        o = Options(seed, self.args.rate if rate is None else rate, forced)
        place = self.home / "case"
        shutil.rmtree(place, ignore_errors=True)
        model = place / "model"
        model.mkdir(parents=True)
        start = time.perf_counter()
        try:
            inputs, reference, args, unused = KINDS[kind][0](o, model, small or self.args.small)
        except Exception as error:
            if self.args.verbose:
                raise
            return Verdict("unmade", normal(f"{type(error).__name__}: {error}"), o=o)
        (place / "input.jsonl").write_text("".join(json.dumps(i) + "\n" for i in inputs))
        made = time.perf_counter()
        failed, expected, gaps = self.ask(kind, inputs, reference, unused)
        if failed is not None:
            shutil.copytree(model, place / "kept")
            mean(model)
            failed, expected, gaps = self.ask(kind, inputs, reference, unused)
            shutil.rmtree(model)
            (place / "kept").rename(model)
        asked = time.perf_counter()
        try:
            run = subprocess.run([self.args.tidemill, "predict", "--model", model, "--input", place / "input.jsonl", "--workers", "1", *args], capture_output=True, text=True, timeout=60)
        except subprocess.TimeoutExpired:
            return Verdict("wrong", "takes more than a minute", o=o, folder=place)
        self.times += collections.Counter({"make": made - start, "reference": asked - made, "tidemill": time.perf_counter() - asked})
        verdict = lambda status, message="", detail="", parts=None: Verdict(status, message, detail, o, place, expected, inputs, args, parts)
        lines = [x for x in run.stdout.split("\n") if x]
        if run.returncode < 0 or run.returncode == 101 or "panicked" in run.stderr:
            return verdict("wrong", "crash: " + normal(run.stderr))
        refused = run.returncode != 0
        if not refused and len(lines) != len(inputs):
            return verdict("wrong", f"{len(lines)} lines for {len(inputs)} inputs")
        errors = [json.loads(x).get("error") for x in lines]
        nothing = refused or all(errors)
        if failed is not None:
            return verdict("skipped", failed) if nothing else verdict("unreferenced", failed)
        if refused:
            return verdict("refused", normal(run.stderr), run.stderr.strip().splitlines()[-1][:300])
        if gaps:
            return verdict("invented", "tensors that are missing", ", ".join(sorted(gaps)[:3]))
        tags = pictures.image.kinds if kind == "image" else [json.dumps(i, ensure_ascii=False)[:90] for i in inputs]
        close = self.close(kind)
        results = [compare(e, x, close) for e, x in zip(expected, lines)]
        wrong = [(t, r) for t, r in zip(tags, results) if r and not r.startswith("error: ")]
        if wrong:
            status = "wrong"
            if kind == "table" and not any(r and not r.startswith("error: ") for r in (compare(e, x, 1e-5) for e, x in zip(expected, lines))):
                status = "imprecise"
            message = "answers " + wrong[0][1].split(", not")[0] if wrong[0][1].startswith("answers") else ""
            fine = any(r is None and "note" not in e for r, e in zip(results, expected))
            parts = kind == "image" and fine and [("wrong", re.sub(r" \(.*", "", t), r) for t, r in wrong]
            return verdict(status, message, f"{len(wrong)} of {len(inputs)} inputs, {wrong[0][0]}: {wrong[0][1]}", parts)
        failing = [(t, r) for t, r in zip(tags, results) if r]
        if failing:
            parts = kind == "image" and [("error", f"{t if '(' not in t else t[t.index('('):]}: {normal(r)[7:]}", r) for t, r in failing]
            return verdict("error", normal(failing[0][1])[7:], f"{len(failing)} of {len(inputs)} inputs, {failing[0][0]}", parts)
        done = verdict("ok")
        done.lines = lines
        return done

    def ask(self, kind, inputs, reference, unused):
        """Why the reference has no answer, its answers, and the tensors that it made up."""
        torch.manual_seed(1)
        failed, expected, gaps = None, [], set()
        try:
            answer = reference()
            gaps = {name for name in missing if not unused(name)} if kind != "table" else set()
            expected = each(inputs, answer)
            if all("note" in e for e in expected):
                failed = "each input: " + normal(expected[0]["note"])
        except Exception as error:
            if self.args.verbose:
                import traceback
                traceback.print_exc()
            failed = normal(f"{type(error).__name__}: {error}")
        missing.clear()
        return failed, expected, gaps

    def minimal(self, kind, seed, forced, verdict):
        """The options without which `verdict` is another one."""
        forced, taken = dict(forced), dict(verdict.o.taken)
        best = verdict
        names = sorted(taken)
        half = names[: len(names) // 2], names[len(names) // 2:]
        for part in half:  # at first many at once
            tried = forced | dict.fromkeys(part, DEFAULT)
            v = self.folder(kind, seed, tried)
            if v.key() == verdict.key():
                forced, best = tried, v
        again = True
        while again:
            again = False
            for name in sorted(best.o.taken):
                if name not in best.o.taken:
                    continue
                tried = forced | {name: DEFAULT}
                v = self.folder(kind, seed, tried)
                if v.key() == verdict.key():
                    forced, best, again = tried, v, True
        return forced, best

    def explain(self, kind, seed, verdict, causes, forced=None, rounds=0):
        """Counts a verdict to its causes, and finds new ones. Gives the verdict of the folder without them."""
        forced = dict(forced or {})
        while verdict.status not in ("ok", "unmade") and rounds < 6:
            rounds += 1
            if verdict.parts and self.folder(kind, seed, forced | dict.fromkeys(verdict.o.taken, DEFAULT)).status == verdict.status:  # some pictures, and not the model
                for status, message, detail in dict.fromkeys(verdict.parts):
                    cause = causes.setdefault((status, message), {"key": (kind, status, message), "options": {}, "count": 0, "seeds": [], "detail": detail})
                    cause["count"] += 1
                    cause["seeds"] = (cause["seeds"] + [seed])[:5]
                return verdict
            taken = verdict.o.taken
            known = next((c for c in causes.values() if c["key"] == (kind, *verdict.key()) and c["options"].items() <= taken.items() and all(taken.get(n) == v for n, v in c["options"].items())), None)
            if known is None:
                small, best = self.minimal(kind, seed, forced, verdict)
                options = dict(best.o.taken)
                name = json.dumps([kind, *best.key(), options], sort_keys=True, ensure_ascii=False)
                known = causes.setdefault(name, {"key": (kind, *best.key()), "options": options, "count": 0, "seeds": [], "detail": best.detail, "forced": small})
            known["count"] += 1
            known["seeds"] = (known["seeds"] + [seed])[:5]
            if not known["options"]:
                return verdict
            forced |= dict.fromkeys(known["options"], DEFAULT)
            verdict = self.folder(kind, seed, forced)
        return verdict


def report(causes, counts, last, seconds, out):
    several = lambda counts: ", ".join(f"{n} {s}" for s, n in counts.most_common())
    print(f"{sum(counts.values())} folders in {seconds:.0f} s: {several(counts)}", file=out)
    print(f"the {sum(last.values())} that are not ok, without the options that make it so: {several(last)}", file=out)
    order = [*FAILS, "error", "refused", "skipped"]
    for status in order:
        group = [c for c in causes.values() if c["key"][1] == status]
        if not group:
            continue
        print(f"\n== {status}: {len(group)} causes", file=out)
        for c in sorted(group, key=lambda c: (c["key"][0] if status in FAILS else c["key"][2], -c["count"])):
            options = "; ".join(f"{n} = {json.dumps(v, ensure_ascii=False)}" for n, v in c["options"].items()) or "no option"
            print(f"{c['count']:4} × {c['key'][0]:8} {options}", file=out)
            if c["key"][2]:
                print(f"         {c['key'][2]}", file=out)
            detail = "" if status in ("refused", "skipped") else c["detail"][:260]
            print(f"         {detail}  [seed {', '.join(map(str, c['seeds'][:3]))}]", file=out)


def rounded(expected):
    """Answers as they are committed: seven digits, which is beyond what is compared."""
    if isinstance(expected, float):
        return float(f"{expected:.7g}")
    if isinstance(expected, list):
        return [rounded(e) for e in expected]
    return {k: rounded(v) for k, v in expected.items()} if isinstance(expected, dict) else expected


def fragment(message):
    """The beginning of a refusal, without where it was met."""
    message = re.sub(r"^(((load )?\S*/model|load model|model|load the text model|field \"text\"): )+", "", message)
    return message if len(message) <= 70 else message[:70].rsplit(" ", 1)[0]


def settled(v, close):
    """The inputs and their answers where Tidemill's are a tenth of what is allowed away, else None: another CPU rounds otherwise."""
    kept = []
    for value, expected, line in zip(v.inputs, v.expected, v.lines):
        if "note" in expected:
            continue  # the reference has none
        error = json.loads(line).get("error")
        if error is not None:
            kept.append((value, {"refused": fragment(error)}))
        elif compare(expected, line, close / 10) is None:
            if "NaN" not in json.dumps(expected) and "Infinity" not in json.dumps(expected):  # of which JSON has none
                kept.append((value, rounded(expected) if close > 1e-6 else expected))
        else:
            return None
    return kept


def write(v, kind, kept, target):
    """A folder with its inputs, answers, and how they were come by."""
    shutil.copytree(v.folder / "model", target / "model")
    lines = lambda values: "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in values)
    (target / "input.jsonl").write_text(lines(i for i, _ in kept))
    (target / "expected.jsonl").write_text(lines(e for _, e in kept))
    case = {"args": v.args, "kind": kind, "seed": v.o.seed, "options": v.o.taken}
    if v.status == "refused":
        case["refused"] = fragment(v.detail)
    (target / "case.json").write_text(json.dumps(case, ensure_ascii=False, indent=1) + "\n")
    return sum(f.stat().st_size for f in target.rglob("*") if f.is_file())


def commit(run, args):
    """Writes folders until what is drawn brings nothing that does not stand in one of them."""
    out = pathlib.Path(args.commit)
    shutil.rmtree(out, ignore_errors=True)
    covered, size, number = set(), 0, 0
    for kind in KINDS:
        idle, kept = 0, 0
        for seed in range(args.seed, args.seed + 100_000):
            if idle == args.patience:
                break
            idle += 1
            v = run.folder(kind, seed, small=True, rate=0.3 if kind == "table" else 0.1)
            new = {(kind if n in ("family", "saved again", "weights dtype") else "", n, json.dumps(x)) for n, x in v.o.taken.items()} - covered
            group = "refused", re.sub(r"""["'][^"']*["']?|\d+|\w+Model\b|\S+\.(json|bin)""", "…", fragment(v.detail))[:28]
            if v.status == "refused" and group not in covered:
                new, answers = {group}, []
            elif v.status == "ok" and len(new) >= (args.least if kind == "embed" else 2 if kind == "pair" else 3):
                answers = settled(v, run.close(kind))
            else:
                continue
            if answers is None or sum(f.stat().st_size for f in (v.folder / "model").rglob("*") if f.is_file()) > args.largest:
                continue
            covered |= new
            idle, number, kept = 0, number + 1, kept + 1
            size += write(v, kind, answers, out / f"{kind}-{kept:02}")
    every = sum(len(v) for v in Options.every.values())
    print(f"{number} folders, {size / 1e6:.2f} MB, {len([c for c in covered if c[0] != 'refused'])} values of options ({every} known) in {out}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tidemill", default="target/release/tidemill", help="the binary")
    parser.add_argument("--folders", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="of the first folder; the others count on")
    parser.add_argument("--kind", choices=list(KINDS), help="only these; default: all, in turns")
    parser.add_argument("--force", default="{}", help='options as JSON, {"pooling": ["max"]}')
    parser.add_argument("--rate", type=float, help="how often an option is not its default; default: drawn for each folder")
    parser.add_argument("--each", action="store_true", help="instead of random folders one for each value of each option, all others being default, in each family")
    parser.add_argument("--small", action="store_true", help="models of a few kB")
    parser.add_argument("--report", default="-", help="where the report goes")
    parser.add_argument("--keep", help="a folder to which the last model folder is copied")
    parser.add_argument("--table-close", type=float, default=1e-9, help="how close a table's answers must be; beyond 1e-5 they are wrong")
    parser.add_argument("--commit", help="write the compact committed set into this folder instead")
    parser.add_argument("--patience", type=int, default=60, help="with --commit: folders without anything new after which a kind is done")
    parser.add_argument("--largest", type=int, default=60_000, help="with --commit: bytes that a folder's files may have")
    parser.add_argument("--least", type=int, default=8, help="with --commit: new values of options that an embedding model must bring; another brings two or three")
    parser.add_argument("--verbose", action="store_true")
    args = parser.parse_args()
    args.tidemill = str(pathlib.Path(args.tidemill).resolve())
    run = Differential(args)
    try:
        if args.commit:
            return commit(run, args)
        return many(run, args)
    finally:
        shutil.rmtree(run.home, ignore_errors=True)


def each_option(run, kinds, seed, forced):
    """A folder for each value of each option. Options that come up with one family only are tried with it."""
    for kind in kinds:
        seen = set()
        for family in ["bert"] if kind in ("image", "table") else list(text_models.PREFIX):
            base = forced | ({} if kind in ("image", "table") else {"family": family})
            before = {n: set(v) for n, v in Options.every.items()}
            Options.every.clear()
            run.folder(kind, seed, base, rate=0.0)
            found = {n: set(v) for n, v in Options.every.items()}
            Options.every.update({n: found.get(n, set()) | before.get(n, set()) for n in found.keys() | before.keys()})
            yield seed, kind, base
            for name, values in sorted(found.items()):
                for value in sorted(values):
                    general = name.startswith(("tokenizer", "special", "added", "pooling", "after", "config", "sentence", "prompt"))
                    if name not in base and ((name, value) not in seen or general and name.startswith(("tokenizer_config", "special"))):
                        seen.add((name, value))
                        yield seed, kind, base | {name: json.loads(value)}


def many(run, args):
    kinds = [args.kind] if args.kind else [k for k, (_, weight) in KINDS.items() for _ in range(weight)]
    causes, counts, last, unmade, start = {}, collections.Counter(), collections.Counter(), collections.Counter(), time.perf_counter()
    forced = json.loads(args.force)
    first = 0.0
    plan = [(args.seed + n, kinds[(args.seed + n) % len(kinds)], forced) for n in range(args.folders)]
    if args.each:
        args.rate = 0.0
        plan = list(each_option(run, dict.fromkeys(kinds), args.seed, forced))

    def write():
        text = open(args.report, "w") if args.report != "-" else sys.stdout
        report(causes, counts, last, time.perf_counter() - start, text)
        print(f"\nseconds: {dict((k, round(v, 1)) for k, v in run.times.items())}; of the first pass alone {first:.0f}", file=text)
        for message, n in unmade.most_common(25):
            print(f"{n:4} × unmade: {message}", file=text)
        if text is not sys.stdout:
            text.close()
    for n, (seed, kind, forced) in enumerate(plan):
        began = time.perf_counter()
        v = run.folder(kind, seed, forced, rate=args.rate)
        first += time.perf_counter() - began
        counts[v.status] += 1
        if args.keep:
            shutil.rmtree(args.keep, ignore_errors=True)
            shutil.copytree(run.home / "case", args.keep)
        if args.folders == 1 or args.verbose:
            print(kind, seed, v.status, v.message, v.detail, json.dumps(v.o.taken, ensure_ascii=False), file=sys.stderr)
        if v.status == "unmade":
            unmade[v.message] += 1
        elif v.status != "ok":
            last[run.explain(kind, seed, v, causes, forced).status] += 1
        if args.report != "-" and n % 50 == 49:
            write()
    write()
    return int(any(c["key"][1] in FAILS for c in causes.values()))


if __name__ == "__main__":
    sys.exit(main())
