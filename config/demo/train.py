#!/usr/bin/env python3
"""Makes the demo's records and its two model versions, deterministically.

    pip install scikit-learn==1.7.2 safetensors==0.8.0
    python config/demo/train.py

Writes records.jsonl and models/breast-cancer/{1,2} beside this file. Version 1 is a logistic regression, version 2 a
multi-layer perceptron; both are fitted on the rows with "split": "train" only, so that the demo's accuracy, taken on the
others, means something.
"""
import hashlib, json, pathlib

import numpy as np
from safetensors.numpy import save_file
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

HERE = pathlib.Path(__file__).resolve().parent
GAPS = 40
rng = np.random.default_rng(20261124)

table = load_breast_cancer()
names = [str(n) for n in table.feature_names]
labels = [str(n) for n in table.target_names]  # malignant, benign
order = rng.permutation(len(table.data))
rows = []
for number, row in enumerate(order):
    fields = {"id": number, "split": "train" if number % 2 == 0 else "test"}
    fields |= {n: float(v) for n, v in zip(names, table.data[row])}
    fields["diagnosis"] = labels[table.target[row]]
    rows.append(fields)

# What real tables have: gaps, one wrong type, one record that is no JSON, one number that JSON does not know.
for place, number in enumerate(rng.choice(len(rows), GAPS, replace=False)):
    field = names[int(rng.integers(len(names)))]
    if place % 2 == 0:
        del rows[number][field]
    else:
        rows[number][field] = None
lines = [json.dumps(r) for r in rows]
wrong, broken, nan = 101, 257, 401
lines[wrong] = json.dumps(rows[wrong] | {"mean texture": "18,3"})
lines[broken] = lines[broken][: len(lines[broken]) // 2]
lines[nan] = json.dumps(rows[nan] | {"mean area": float("nan")})
(HERE / "records.jsonl").write_text("\n".join(lines) + "\n")

good = [r for n, r in enumerate(rows) if n not in (wrong, broken, nan)]
train = [r for r in good if r["split"] == "train"]
test = [r for r in good if r["split"] == "test"]


def matrix(rows):
    return np.array([[np.nan if r.get(n) is None else r[n] for n in names] for r in rows], dtype=np.float64)


def target(rows):
    return np.array([labels.index(r["diagnosis"]) for r in rows])


imputer = SimpleImputer(strategy="median").fit(matrix(train))
scaler = StandardScaler().fit(imputer.transform(matrix(train)))


def features(rows):
    return scaler.transform(imputer.transform(matrix(rows)))


def write(version, architecture, model, weights):
    out = HERE / "models" / "breast-cancer" / str(version)
    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for i, (w, b) in enumerate(weights):
        tensors[f"layers.{i}.weight"] = np.ascontiguousarray(w.T, dtype=np.float64)
        tensors[f"layers.{i}.bias"] = np.ascontiguousarray(b, dtype=np.float64)
    save_file(tensors, out / "model.safetensors")
    task = "tabular-classification"
    dump = lambda name, value: (out / name).write_text(json.dumps(value, indent=1) + "\n")
    dump("config.json", {"task": task, "architecture": architecture, "activation": "relu", "labels": labels, "output": "sigmoid"})
    columns = zip(names, imputer.statistics_, scaler.mean_, scaler.scale_)
    dump("preprocess.json", {"columns": [
        {"name": n, "kind": "numeric", "impute": float(i), "mean": float(m), "scale": float(s)} for n, i, m, s in columns]})
    gaps = [r for r in test if any(r.get(n) is None for n in names)][:2]
    sample = test[:6] + gaps
    golden = []
    for r, p in zip(sample, model.predict_proba(features(sample))):
        inputs = {n: r[n] for n in names if n in r}
        best = int(np.argmax(p))
        golden.append({"input": inputs, "output": {
            "label": labels[best], "score": float(p[best]), "scores": {l: float(s) for l, s in zip(labels, p)}}})
    dump("golden.json", golden)
    files = {}
    for f in sorted(p for p in out.iterdir() if p.name != "manifest.json"):
        data = f.read_bytes()
        files[f.name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    listing = "".join(f"{d['sha256']}  {n}\n" for n, d in sorted(files.items()))
    dump("manifest.json", {
        "format": 1, "task": task, "architecture": architecture, "name": "breast-cancer", "files": files,
        "digest": "sha256:" + hashlib.sha256(listing.encode()).hexdigest(), "golden": {"file": "golden.json", "tolerance": 1e-9}})
    print(f"version {version} ({architecture}): accuracy on {len(test)} held-out rows {model.score(features(test), target(test)):.4f}")


logistic = LogisticRegression(max_iter=1000).fit(features(train), target(train))
write(1, "logistic", logistic, [(logistic.coef_.T, logistic.intercept_)])
mlp = MLPClassifier((64, 32), alpha=1.0, max_iter=2000, random_state=7).fit(features(train), target(train))
write(2, "mlp", mlp, list(zip(mlp.coefs_, mlp.intercepts_)))
aliases = HERE / "models" / "breast-cancer" / "aliases"
aliases.mkdir(exist_ok=True)
(aliases / "champion").write_text("1\n")
