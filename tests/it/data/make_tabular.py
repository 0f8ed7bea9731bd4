#!/usr/bin/env python3
"""Golden numbers of scikit-learn for tabular models.

    pip install scikit-learn==1.9.1
    python tests/it/data/make_tabular.py               # all of them
    python tests/it/data/make_tabular.py linear …      # these only

Writes a folder for each: the model and golden.json ([{"input": …, "output": …}] as `tidemill predict` prints it), every number
with all its digits. Weights are f64, as scikit-learn fits them, unless the name says otherwise.
"""
import json, pathlib, shutil, struct, sys, warnings

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

warnings.filterwarnings("ignore")
HERE = pathlib.Path(__file__).resolve().parent
ONLY = sys.argv[1:]
CLASSES, VALUE = "tabular-classification", "tabular-regression"


def dump(path, value):
    path.write_text(json.dumps(value) + "\n")


def stored(values, dtype):
    """The bytes of an array in a dtype of safetensors, and the f64 that they stand for."""
    values = np.ascontiguousarray(values, dtype=np.float64)
    if dtype == "BF16":  # cut off, not rounded
        bits = values.astype("<f4").view("<u4") >> 16
        return bits.astype("<u2").tobytes(), (bits << 16).astype("<u4").view("<f4").astype(np.float64)
    kept = values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    return kept.tobytes(), kept.astype(np.float64)


def save(out, layers, dtype):
    """model.safetensors of [(weight [inputs, units], bias [units])]; the layers as they stand there."""
    header, data, kept = {}, b"", []
    for number, layer in enumerate(layers):
        both = []
        for name, values in zip(("weight", "bias"), (layer[0].T, layer[1])):
            bytes_, exact = stored(values, dtype)
            header[f"layers.{number}.{name}"] = {
                "dtype": dtype, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(bytes_)]}
            data += bytes_
            both.append(exact)
        kept.append((both[0].T, both[1]))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (out / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    return kept


def write(name, model, config, columns, inputs, features, dtype="F64"):
    """The folder; `features` are what the model is given for `inputs`."""
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    if hasattr(model, "coefs_"):
        kept = save(out, list(zip(model.coefs_, model.intercepts_)), dtype)
        model.coefs_, model.intercepts_ = [w for w, _ in kept], [b for _, b in kept]
    else:
        weight, bias = save(out, [(np.atleast_2d(model.coef_).T, np.atleast_1d(model.intercept_))], dtype)[0]
        model.coef_, model.intercept_ = weight.T.reshape(np.shape(model.coef_)), bias.reshape(np.shape(model.intercept_))
    labels = [str(c) for c in getattr(model, "classes_", [])]
    dump(out / "config.json", config | ({"labels": labels} if labels else {}))
    dump(out / "preprocess.json", {"columns": columns})
    golden = []
    for i, record in enumerate(inputs):
        row = features[i : i + 1]
        if labels:
            p = model.predict_proba(row)[0]
            best = str(model.predict(row)[0])
            answer = {"label": best, "score": float(p[labels.index(best)]), "scores": dict(zip(labels, map(float, p)))}
        else:
            answer = {"value": float(model.predict(row)[0])}
        golden.append({"input": record, "output": answer})
    dump(out / "golden.json", golden)


rng = np.random.default_rng(7)
COLORS = ["blue", "green", "red"]


def rows(n):
    out = []
    for _ in range(n):
        r = {"a": float(rng.normal(3, 2)), "b": float(rng.normal(-100, 40)), "color": str(rng.choice(COLORS))}
        for k in list(r):
            if rng.random() < 0.1:
                r[k] = None
        out.append(r)
    return out


def frame(rows):
    return np.array([[np.nan if r["a"] is None else r["a"], np.nan if r["b"] is None else r["b"], r["color"]] for r in rows], dtype=object)


def tabular(name, model, task, architecture, output, activation, y, dtype="F64"):
    pre = ColumnTransformer([
        ("n", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), [0, 1]),
        ("c", make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=None), OneHotEncoder(handle_unknown="ignore")), [2])])
    train, test = rows(300), rows(40) + [{"a": 1.0, "b": -90.0, "color": "violet"}]  # drawn for each, wanted or not
    if ONLY and name not in ONLY:
        return
    model.fit(pre.fit_transform(frame(train)), y(train))
    n, c = pre.named_transformers_["n"], pre.named_transformers_["c"]
    columns = [{"name": k, "kind": "numeric", "impute": float(n[0].statistics_[i]), "mean": float(n[1].mean_[i]), "scale": float(n[1].scale_[i])}
               for i, k in enumerate(["a", "b"])]
    columns.append({"name": "color", "kind": "categorical", "impute": str(c[0].statistics_[0]), "categories": [str(v) for v in c[1].categories_[0]]})
    config = {"task": task, "architecture": architecture, "activation": activation, "output": output}
    inputs = [{k: v for k, v in r.items() if v is not None} for r in test]
    write(name, model, config, columns, inputs, pre.transform(frame(test)), dtype)


def two(rows):
    return np.array(["yes" if (r["a"] or 3) > 3 or r["color"] == "red" else "no" for r in rows])


def many(rows):
    return np.array([f"{r['color'] or 'blue'}" for r in rows])


def value(rows):
    return np.array([(r["a"] or 3) * 0.5 + ((r["b"] or -100) + 100) * 0.01 for r in rows])


tabular("logistic", LogisticRegression(), CLASSES, "logistic", "sigmoid", "identity", two)
tabular("logistic-three", LogisticRegression(), CLASSES, "logistic", "softmax", "identity", many)
tabular("mlp-relu", MLPClassifier((16, 8), random_state=1, max_iter=500), CLASSES, "mlp", "sigmoid", "relu", two)
tabular("mlp-tanh-three", MLPClassifier((16,), activation="tanh", random_state=1, max_iter=500), CLASSES, "mlp", "softmax", "tanh", many)
tabular("linear", LinearRegression(), VALUE, "linear", "identity", "identity", value)
tabular("mlp-value", MLPRegressor(hidden_layer_sizes=(16,), activation="logistic", random_state=1, max_iter=800), VALUE, "mlp", "identity", "logistic", value)
# The same numbers, as a file may hold them.
tabular("mlp-f32", MLPClassifier((7,), random_state=1, max_iter=300), CLASSES, "mlp", "sigmoid", "relu", two, "F32")
tabular("linear-f16", LinearRegression(), VALUE, "linear", "identity", "identity", value, "F16")
tabular("logistic-bf16", LogisticRegression(), CLASSES, "logistic", "softmax", "identity", many, "BF16")

# Time stamps in milliseconds, as they are: what counts is their difference.
if not ONLY or "linear-times" in ONLY:
    rng = np.random.default_rng(8)
    start = rng.integers(1_690_000_000_000, 1_720_000_000_000, 40)
    times = np.stack([start, start + rng.integers(50_000, 900_000, 40)], 1).astype(np.float64)
    model = LinearRegression()
    model.coef_, model.intercept_ = np.array([-0.002, 0.002]), np.array(3.0)
    columns = [{"name": name, "kind": "numeric"} for name in ("start", "end")]
    inputs = [{"start": int(a), "end": int(b)} for a, b in times]
    write("linear-times", model, {"task": VALUE, "architecture": "linear", "output": "identity"}, columns, inputs, times)

# Categories of every kind, each asked for in every way that JSON can write it: null and absent too.
if not ONLY or "logistic-kinds" in ONLY:
    rng = np.random.default_rng(9)
    fitted = {
        "plan": np.array([1, 2, 3]), "rate": np.array([0.5, 1.0, 2.5]), "paid": np.array([False, True]),
        "code": np.array(["007", "7", "true"], dtype=object), "tier": np.array(["a", None], dtype=object)}
    encoders = {k: OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(v.reshape(-1, 1)) for k, v in fitted.items()}

    def encode(record):
        typed = lambda v: np.array([[v]], dtype=object if v is None or isinstance(v, str) else None)
        return np.concatenate([e.transform(typed(record.get(k)))[0] for k, e in encoders.items()])

    train = [{k: v[rng.integers(len(v))] for k, v in fitted.items()} for _ in range(200)]
    x = np.stack([encode(r) for r in train])
    model = LogisticRegression().fit(x, (x @ rng.normal(size=x.shape[1]) > 0).astype(int))
    base = {"plan": 1, "rate": 0.5, "paid": False, "code": "007", "tier": "a"}
    inputs = [base | {k: v} for k, values in {
        "plan": [1, 2, 3.0, True, False, 2.5, "2", 10**20], "rate": [1, 1.0, True, 2.5, 0.1, "1.0"],
        "paid": [True, False, 1, 0, 0.0, 2, "true"], "code": ["007", "7", "true", "07", " 7", None], "tier": ["a", "b", None]}.items() for v in values]
    inputs += [{k: v for k, v in base.items() if k != absent} for absent in ("tier", "code")]
    columns = [{"name": k, "kind": "categorical", "categories": [getattr(c, "item", lambda c=c: c)() for c in e.categories_[0]]}
               for k, e in encoders.items()]
    config = {"task": CLASSES, "architecture": "logistic", "output": "sigmoid"}
    write("logistic-kinds", model, config, columns, inputs, np.stack([encode(r) for r in inputs]))
