"""Folders of tabular models, and what scikit-learn answers with them."""
import json
import warnings

import numpy as np
from safetensors.numpy import save_file

warnings.filterwarnings("ignore")


def table(o, folder, small):
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, OneHotEncoder, RobustScaler, StandardScaler
    rng = np.random.default_rng(o.seed)
    pick = o.rng("table")
    architecture = o("architecture", "linear", "logistic", "mlp", rate=0.66)
    task = "tabular-classification" if architecture == "logistic" or (architecture == "mlp" and o("mlp", "classifier", "regressor", rate=0.4) == "classifier") else "tabular-regression"
    count = o("labels", 2, 3, 5, rate=0.4)
    numbers, categories = o("numeric columns", 3, 1, 6, 0), o("categorical columns", 1, 0, 3)
    numbers = max(numbers, 0 if categories else 1)
    spread = o("spread", "usual", "time stamps", "tiny", "huge", "constant", rate=max(o.rate, 0.2))
    centre, scale = {"usual": (3.0, 2.0), "time stamps": (1.7e12, 1e9), "tiny": (1e-7, 1e-8), "huge": (1e12, 1e15), "constant": (5.0, 0.0)}[spread]
    scaling = o("scaling", "standard", "none", "minmax", "maxabs", "robust", "no mean", "no scale")
    imputing = o("imputing", "median", "mean", "constant", "most_frequent", "none")
    words = o("category kind", "words", "numbers", "booleans", "hostile", "mixed case", "number-like words", rate=max(o.rate, 0.3))
    values = {"words": ["blue", "green", "red"], "numbers": [1, 2, 3], "booleans": [False, True], "hostile": ["", " ", "é", "e\u0301", "漢🙂", "\x00", "nan", "None"], "mixed case": ["A", "a", "B"], "number-like words": ["1", "2.0", "1e3", "true"]}[words]
    unknown = o("handle_unknown", "ignore", "error")
    names = [f"n{i}" for i in range(numbers)] + [f"c{i}" for i in range(categories)]
    renamed = o("column names", "usual", "hostile")
    label = dict(zip(names, ["a b", "é", "", "漢", "x.y", "\"q\"", "n0", "T\t"])) if renamed == "hostile" else {n: n for n in names}
    gaps = imputing != "none"

    def row(training):
        out = {}
        for n in names:
            if n[0] == "n":
                v = float(rng.normal(centre, scale)) if not training and rng.random() < 0.9 or training else pick.choice([0.0, -0.0, 1e300, -1e300, 5e-324, 1e16 + 1, 0.1, 123456789012345680.0])
                if not training and rng.random() < 0.2:
                    v = int(max(min(v, 1e18), -1e18))
            else:
                v = pick.choice(values)
                if not training and rng.random() < 0.15:
                    v = pick.choice({"numbers": [7, 2.5, -1], "booleans": ["violet"], "number-like words": ["violet", "1.0"]}.get(words, ["violet", "Blue", " blue", "", 7, True, 2.5]))
            if (not training or True) and gaps and rng.random() < 0.12:
                v = None
            out[label[n]] = v
        return out
    train = [row(True) for _ in range(24)]
    for i, n in enumerate(names):
        if n[0] == "c":
            for r, v in zip(train, values):
                r[label[n]] = v
        else:
            train[0][label[n]] = centre

    def frame(rows):
        """Columns as scikit-learn takes them: numbers as f64, categories as objects."""
        number = np.array([[np.nan if r.get(label[n]) is None else float(r[label[n]]) for n in names if n[0] == "n"] for r in rows], dtype=np.float64).reshape(len(rows), -1)
        category = np.array([[r.get(label[n]) for n in names if n[0] == "c"] for r in rows], dtype=object).reshape(len(rows), -1)
        return number, category
    scaler = {"standard": StandardScaler, "none": lambda: "passthrough", "minmax": MinMaxScaler, "maxabs": MaxAbsScaler, "robust": RobustScaler, "no mean": lambda: StandardScaler(with_mean=False), "no scale": lambda: StandardScaler(with_std=False)}[scaling]()
    number, category = frame(train)
    impute_n = SimpleImputer(strategy=imputing, **({"fill_value": -7.5} if imputing == "constant" else {})) if gaps else None
    if numbers:
        x = impute_n.fit_transform(number) if gaps else number
        x = scaler.fit_transform(x) if scaler != "passthrough" else x
    fill = values[0] if o("category imputing", "value", "none") == "value" else None
    full = [[fill if v is None and fill is not None else v for v in r] for r in category]
    full = np.array([[values[0] if v is None else v for v in r] for r in full], dtype=object).reshape(len(train), -1)
    hot = OneHotEncoder(handle_unknown=unknown, sparse_output=False)
    if categories:
        hot.fit(full)

    def features(rows):
        number, category = frame(rows)
        parts = []
        if numbers:
            if not gaps and np.isnan(number).any():
                raise ValueError("a gap")
            x = impute_n.transform(number) if gaps else number
            parts.append(scaler.transform(x) if scaler != "passthrough" else x)
        if categories:
            if fill is None and any(v is None for r in category for v in r):
                raise ValueError("a gap")
            parts.append(hot.transform(np.array([[fill if v is None else v for v in r] for r in category], dtype=object).reshape(len(rows), -1)))
        return np.hstack(parts)
    x = features([{k: (centre if v is None and not gaps else values[0] if v is None else v) for k, v in r.items()} if True else r for r in
                  [{label[n]: (r[label[n]] if r[label[n]] is not None else (centre if n[0] == "n" else values[0])) for n in names} for r in train]])
    width = x.shape[1]
    # The model: fitted for a moment, so that scikit-learn makes all of its parts, and then given its weights.
    activation = o("activation", "relu", "tanh", "logistic", "identity", rate=max(o.rate, 0.3)) if architecture == "mlp" else "relu"
    sizes = {"": (), "linear": (), "logistic": (), "mlp": o("hidden layers", [5], [4, 3], [9, 9, 9])}[architecture]
    dtype = o("weights dtype", "float64", "float32", rate=0.3)
    classes = np.arange(count)
    y = np.resize(classes, len(x))
    if architecture == "linear":
        model = (Ridge() if o("regressor", "linear", "ridge") == "ridge" else LinearRegression()).fit(x, np.resize([1.0, 2.0, -3.0], len(x)))
    elif architecture == "logistic":
        model = LogisticRegression(max_iter=1).fit(x, y)
    elif task == "tabular-classification":
        model = MLPClassifier(hidden_layer_sizes=tuple(sizes), activation=activation, max_iter=1).fit(np.nan_to_num(x), y)
    else:
        model = MLPRegressor(hidden_layer_sizes=tuple(sizes), activation=activation, max_iter=1).fit(np.nan_to_num(x), np.resize([1.0, 2.0, -3.0], len(x)))
    units = 1 if task == "tabular-regression" or count == 2 else count
    shape, layers = [width, *sizes, units], []
    unit = 1.0 if scaling != "none" or spread in ("usual", "constant") else 1 / max(abs(centre), scale)
    for i, (a, b) in enumerate(zip(shape, shape[1:])):
        w = rng.normal(0, 1 / np.sqrt(a), (a, b)) * (unit if i == 0 else 1)
        layers.append((w.astype(dtype).astype(np.float64), rng.normal(0, 0.5, b).astype(dtype).astype(np.float64)))
    if architecture == "mlp":
        model.coefs_, model.intercepts_ = [w for w, _ in layers], [b for _, b in layers]
    elif architecture == "linear":
        model.coef_, model.intercept_ = layers[0][0][:, 0], float(layers[0][1][0])
    else:
        model.coef_, model.intercept_ = layers[0][0].T, layers[0][1]
    save_file({f"layers.{i}.{k}": np.ascontiguousarray(v, dtype=dtype) for i, (w, b) in enumerate(layers) for k, v in (("weight", w.T), ("bias", b))}, folder / "model.safetensors")
    output = "identity" if task == "tabular-regression" else "sigmoid" if units == 1 else "softmax"
    named = [f"label {i}" for i in range(count)]
    config = {"task": task, "architecture": architecture, "output": output}
    if architecture == "mlp":
        config["activation"] = activation
    if task == "tabular-classification":
        config["labels"] = named
    (folder / "config.json").write_text(json.dumps(config))
    columns = []
    for i, n in enumerate(n for n in names if n[0] == "n"):
        column = {"name": label[n], "kind": "numeric"}
        if gaps:
            column["impute"] = float(impute_n.statistics_[i])
        mean, by = {"standard": lambda: (scaler.mean_[i], scaler.scale_[i]), "none": lambda: (None, None), "minmax": lambda: (scaler.data_min_[i], 1 / scaler.scale_[i]), "maxabs": lambda: (None, scaler.scale_[i]),
                    "robust": lambda: (scaler.center_[i], scaler.scale_[i]), "no mean": lambda: (None, scaler.scale_[i]), "no scale": lambda: (scaler.mean_[i], None)}[scaling]()
        column |= {k: float(v) for k, v in (("mean", mean), ("scale", by)) if v is not None}
        columns.append(column)
    for i, n in enumerate(n for n in names if n[0] == "c"):
        listed = [c if isinstance(c, str) else json.dumps(c) for c in hot.categories_[i].tolist()]
        column = {"name": label[n], "kind": "categorical", "categories": listed}
        if unknown != "ignore" or o("unknown key", "absent", "there") == "there":
            column["unknown"] = unknown
        if fill is not None:
            column["impute"] = fill if isinstance(fill, str) else json.dumps(fill)
        columns.append(column)
    (folder / "preprocess.json").write_text(json.dumps({"columns": columns}))
    inputs = [row(False) for _ in range(8)]
    for r in inputs:
        if gaps:
            for k in [k for k, v in r.items() if v is None and rng.random() < 0.5]:
                del r[k]

    def reference():
        def answer(value):
            x = features([value])
            if not np.isfinite(x).all():
                raise ValueError("not finite")
            if task == "tabular-regression":
                return {"value": float(model.predict(x)[0])}
            return {"scores": [[n, float(p)] for n, p in zip(named, model.predict_proba(x)[0])]}
        return answer
    return inputs, reference, [], lambda name: False
