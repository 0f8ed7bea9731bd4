#!/usr/bin/env python3
"""The Python side of `cargo bench --bench inference`: ONNX Runtime, OpenVINO, CTranslate2, PyTorch and scikit-learn on the
same token ids.

Started by the bench with MODEL_DIR CACHE_DIR; reads one JSON command a line, answers one JSON line each:

  {"do": "load", "ids": [[…], …], "batch": 32}                       -> {"ok": true}
  {"do": "run", "side": "ort-f32", "threads": 1, "sorted": true, "out": FILE|null}
                                                                     -> {"seconds": …, "cpu": …}
  {"do": "make", "family": "vit"}                                    -> {"dir": …}: ViT-B/16 or ModernBERT-base, random weights
  {"do": "family", "family": "vit", "side": "torch-f32", "threads": 2, "ids": [[…], …], "images": 8}
                                                                     -> {"seconds": …}: ids by ModernBERT, images by ViT
  {"do": "tabular", "rows": 256}                                     -> {"seconds": …} for one predict_proba
  {"do": "memory"}                                                   -> {"mib": …}

Sides: ort-f32 (graph optimised by onnxruntime.transformers), ort-int8 (dynamic, per channel), openvino-f32, openvino-bf16,
openvino-int8 (by nncf, calibrated with 100 of the rows), ctranslate2-f32, ctranslate2-int8, torch-f32, torch-bf16. On two threads
OpenVINO and CTranslate2 answer two batches at once, which is their faster way.
Needs: numpy, onnxruntime, onnx, openvino, nncf, ctranslate2, torch, transformers, scikit-learn. The models' files are made once, in
CACHE_DIR.
"""
import json
import os
import pathlib
import resource
import sys
import time

MODEL, CACHE = sys.argv[1], pathlib.Path(sys.argv[2])
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np  # noqa: E402

# What libraries print is not among the answers.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

# Numbers in an embedding.
WIDTH = json.loads(pathlib.Path(MODEL, "config.json").read_text()).get("hidden_size", 0)


def export():
    """model.onnx from the checkpoint, its BERT-fused twin, and the int8 one with a scale per channel."""
    fused, int8 = CACHE / "fused.onnx", CACHE / "int8.onnx"
    if fused.exists() and int8.exists():
        return
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions
    from transformers import AutoModel

    CACHE.mkdir(parents=True, exist_ok=True)
    model = AutoModel.from_pretrained(MODEL, attn_implementation="eager").eval()

    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask, token_type_ids):
            out = self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids)
            return out.last_hidden_state

    ids = torch.ones(2, 9, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {name: {0: "batch", 1: "tokens"} for name in [*names, "hidden"]}
    plain = str(CACHE / "plain.onnx")
    torch.onnx.export(Hidden(), (ids, ids, torch.zeros_like(ids)), plain, input_names=names, output_names=["hidden"],
                      dynamic_axes=axes, opset_version=17, dynamo=False)
    config = model.config
    better = optimizer.optimize_model(plain, model_type="bert", num_heads=config.num_attention_heads,
                                      hidden_size=config.hidden_size, optimization_options=FusionOptions("bert"))
    better.save_model_to_file(str(fused))
    quantize_dynamic(plain, str(int8), weight_type=QuantType.QInt8, per_channel=True)


class Ort:
    def __init__(self, file, threads):
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.session = ort.InferenceSession(str(CACHE / file), options, providers=["CPUExecutionProvider"])
        self.names = {value.name for value in self.session.get_inputs()}

    def __call__(self, ids, mask):
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self.session.run(None, {name: feed[name] for name in self.names})[0]


class Torch:
    def __init__(self, dtype, threads):
        import torch
        from transformers import AutoModel

        torch.set_num_threads(threads)
        self.torch, self.model = torch, AutoModel.from_pretrained(MODEL, dtype=getattr(torch, dtype)).eval()

    def __call__(self, ids, mask):
        torch = self.torch
        with torch.inference_mode():
            ids, mask = torch.from_numpy(ids), torch.from_numpy(mask)
            out = self.model(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))
            return out.last_hidden_state.float().numpy()


class OpenVino:
    """As many requests at once as threads."""

    def __init__(self, file, threads, precision):
        import openvino as ov

        options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads, "INFERENCE_PRECISION_HINT": precision,
                   "PERFORMANCE_HINT": "THROUGHPUT" if threads > 1 else "LATENCY"}
        model = ov.Core().compile_model(file, "CPU", options)
        self.names = [value.get_any_name() for value in model.inputs]
        self.queue = ov.AsyncInferQueue(model, threads)

    def each(self, batches, answered):
        self.queue.set_callback(lambda request, told: answered(*told, request.get_output_tensor(0).data))
        for part, ids, mask in batches:
            feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
            self.queue.start_async({name: feed[name] for name in self.names}, (part, mask))
        self.queue.wait_all()


class CTranslate2:
    """As many batches at once as threads."""

    def __init__(self, threads, kind):
        import ctranslate2
        from concurrent.futures import ThreadPoolExecutor

        self.view = ctranslate2.StorageView.from_array
        self.encoder = ctranslate2.Encoder(ctranslate2_files(), compute_type=kind, intra_threads=1, inter_threads=threads)
        self.pool = ThreadPoolExecutor(threads)

    def each(self, batches, answered):
        def one(batch):
            part, ids, mask = batch
            lengths = self.view(mask.sum(1).astype(np.int32))
            answer = self.encoder.forward_batch(self.view(ids.astype(np.int32)), lengths=lengths)
            answered(part, mask, np.array(answer.last_hidden_state))

        list(self.pool.map(one, batches))


def ctranslate2_files():
    from ctranslate2.converters import TransformersConverter

    to = CACHE / "ctranslate2"
    if not to.exists():
        TransformersConverter(MODEL).convert(str(to))
    return str(to)


def openvino_int8():
    import nncf
    import openvino as ov

    to = CACHE / "openvino-int8.xml"
    if not to.exists():
        def feed(row):
            ids = np.array([row], np.int64)
            return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}

        calibration = nncf.Dataset(rows[::max(1, len(rows) // 100)][:100], feed)
        plain = ov.Core().read_model(str(CACHE / "plain.onnx"))
        kind = nncf.ModelType.TRANSFORMER
        ov.save_model(nncf.quantize(plain, calibration, model_type=kind, subset_size=100), str(to), compress_to_fp16=False)
    return str(to)


SIDES = {
    "openvino-f32": lambda threads: OpenVino(str(CACHE / "plain.onnx"), threads, "f32"),
    "openvino-bf16": lambda threads: OpenVino(str(CACHE / "plain.onnx"), threads, "bf16"),
    "openvino-int8": lambda threads: OpenVino(openvino_int8(), threads, "f32"),
    "ctranslate2-f32": lambda threads: CTranslate2(threads, "float32"),
    "ctranslate2-int8": lambda threads: CTranslate2(threads, "int8"),
    "ort-f32": lambda threads: Ort("fused.onnx", threads),
    "ort-int8": lambda threads: Ort("int8.onnx", threads),
    "torch-f32": lambda threads: Torch("float32", threads),
    "torch-bf16": lambda threads: Torch("bfloat16", threads),
}
loaded, rows, batch, table = {}, [], 32, None


def side(name, threads):
    if (name, threads) not in loaded:
        export()
        loaded[name, threads] = SIDES[name](threads)
    return loaded[name, threads]


def cpu_seconds():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def padded(order):
    """The rows in this order, batch by batch, with their ids and mask of `[rows, longest]`."""
    for at in range(0, len(order), batch):
        part = order[at:at + batch]
        width = max(len(rows[row]) for row in part)
        ids, mask = np.zeros((len(part), width), np.int64), np.zeros((len(part), width), np.int64)
        for place, row in enumerate(part):
            ids[place, :len(rows[row])], mask[place, :len(rows[row])] = rows[row], 1
        yield part, ids, mask


def run(command):
    model = side(command["side"], command["threads"])
    order = list(range(len(rows)))
    if command["sorted"]:
        order.sort(key=lambda row: -len(rows[row]))
    out = np.empty((len(rows), WIDTH), np.float32)

    def answered(part, mask, hidden):
        weight = mask[:, :, None].astype(np.float32)
        mean = (hidden * weight).sum(1) / weight.sum(1)
        out[part] = mean / np.linalg.norm(mean, axis=1, keepdims=True)

    began, cpu = time.perf_counter(), cpu_seconds()
    batches = padded(order)
    if hasattr(model, "each"):
        model.each(batches, answered)
    else:
        for part, ids, mask in batches:
            answered(part, mask, model(ids, mask))
    answer = {"seconds": time.perf_counter() - began, "cpu": cpu_seconds() - cpu}
    if command.get("out"):
        out.tofile(command["out"])
    return answer


def make(family):
    """A checkpoint of the usual size: its speed does not depend on what it has learned."""
    import shutil

    import torch
    import transformers as hf

    to = CACHE / family
    if not (to / "model.safetensors").exists():
        torch.manual_seed(0)
        if family == "vit":
            hf.ViTForImageClassification(hf.ViTConfig(num_labels=10)).save_pretrained(to)
            mean = [0.5] * 3
            side = {"height": 224, "width": 224}
            preprocess = {"image_processor_type": "ViTImageProcessor", "do_resize": True, "do_rescale": True, "resample": 2,
                          "do_normalize": True, "image_mean": mean, "image_std": mean, "rescale_factor": 1 / 255, "size": side}
            (to / "preprocessor_config.json").write_text(json.dumps(preprocess))
        else:
            hf.ModernBertModel(hf.ModernBertConfig()).save_pretrained(to)
            tiny = pathlib.Path(__file__).parent.parent / "tests/it/data/tiny-modernbert"
            shutil.copy(tiny / "tokenizer.json", to)
    return {"dir": str(to)}


def family(command):
    import torch
    import transformers as hf

    name, (_, dtype) = command["family"], command["side"].split("-")
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    torch.set_num_threads(command["threads"])
    if (name, dtype) not in loaded:
        kind = hf.ViTForImageClassification if name == "vit" else hf.ModernBertModel
        loaded[name, dtype] = kind.from_pretrained(CACHE / name, dtype=dtype).eval()
    model = loaded[name, dtype]
    began = time.perf_counter()
    with torch.inference_mode():
        if name == "vit":
            model(pixel_values=torch.zeros(command["images"], 3, 224, 224, dtype=dtype))
        ids = sorted(command["ids"], key=len, reverse=True)
        for at in range(0, len(ids), batch):
            part = [torch.tensor(row) for row in ids[at:at + batch]]
            padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
            model(input_ids=padded, attention_mask=(padded != 0).long())
    return {"seconds": time.perf_counter() - began}


def tabular(count):
    global table
    if table is None:
        from sklearn.datasets import load_breast_cancer
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        data, labels = load_breast_cancer(return_X_y=True)
        table = data, make_pipeline(StandardScaler(), MLPClassifier((64, 32), max_iter=600, random_state=0)).fit(data, labels)
    data, model = table
    part = data[np.arange(count) % len(data)]
    began = time.perf_counter()
    for _ in range(100):
        model.predict_proba(part)
    return {"seconds": (time.perf_counter() - began) / 100}


def memory():
    line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
    return {"mib": float(line.split()[1]) / 1024}


for line in sys.stdin:
    command = json.loads(line)
    if command["do"] == "load":
        rows, batch = command["ids"], command["batch"]
        answer = {"ok": True}
    elif command["do"] == "run":
        answer = run(command)
    elif command["do"] == "make":
        answer = make(command["family"])
    elif command["do"] == "family":
        answer = family(command)
    elif command["do"] == "tabular":
        answer = tabular(command["rows"])
    else:
        answer = memory()
    print(json.dumps(answer), file=answers, flush=True)
