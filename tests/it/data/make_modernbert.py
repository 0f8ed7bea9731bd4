#!/usr/bin/env python3
"""Golden numbers of transformers for two tiny random-weight ModernBERT checkpoints.

    pip install torch transformers==5.24.0 tokenizers
    python tests/it/data/make_modernbert.py

tiny-modernbert: the backbone, mean-pooled, its config.json as transformers 5 writes it (layer_types,
rope_parameters). tiny-modernbert-labels: a sequence classifier with mean pooling, its config.json as transformers 4 wrote
it. The window of 8 tokens is shorter than most texts, and of three layers the last two have it.
"""
import json, pathlib, shutil

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import ModernBertConfig, ModernBertForSequenceClassification, ModernBertModel

HERE = pathlib.Path(__file__).resolve().parent
SENTENCES = [
    "The tide fills the pond.", "", "a", "Shut the gate and drive the wheel with the whole pond at once.",
    "Ünïcödé, 漢字 and 🙂 in one line", "word " * 100, "Exactly once is a property of what readers see.",
]
WORDS = ("[PAD] [UNK] [CLS] [SEP] the a tide pond gate wheel mill word fills shut drive with whole at once and is of what "
         "readers see exactly property in one line . , ! e s t a i n ##s ##e ##t ##a ##i ##n x").split()
VOCAB = {w: i for i, w in enumerate(dict.fromkeys(WORDS))}
LONGEST = 48


def tiny(name, model, answer, edit):
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    model.eval().save_pretrained(out, safe_serialization=True)
    for extra in out.iterdir():
        if extra.name not in ("config.json", "model.safetensors"):
            extra.unlink()
    (out / "model.safetensors").chmod(0o644)
    path = out / "config.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text())), indent=2) + "\n")
    t = Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", VOCAB["[CLS]"]), ("[SEP]", VOCAB["[SEP]"])])
    t.save(str(out / "tokenizer.json"))
    golden = []
    for s in SENTENCES:
        ids = t.encode(s).ids
        if len(ids) > LONGEST:
            ids = ids[: LONGEST - 1] + ids[-1:]
        with torch.no_grad():
            golden.append({"input": {"text": s}, "output": answer(model(input_ids=torch.tensor([ids])))})
    (out / "golden.json").write_text(json.dumps(golden) + "\n")


def embedding(output):
    v = output.last_hidden_state[0].mean(0)
    return {"embedding": v.tolist()}


def classes(output):
    scores = output.logits[0].softmax(-1)
    best = int(scores.argmax())
    return {"label": LABELS[best], "score": float(scores[best]), "scores": dict(zip(LABELS.values(), scores.tolist()))}


def older(config):
    for key in ("layer_types", "rope_parameters", "local_rope_theta", "global_rope_theta"):
        config.pop(key, None)
    return config | dict(global_attn_every_n_layers=3, global_rope_theta=160000.0, local_rope_theta=10000.0,
                         layer_norm_eps=config["norm_eps"], transformers_version="4.48.0")


torch.manual_seed(20261125)
LABELS = {0: "no", 1: "maybe", 2: "yes"}
small = dict(vocab_size=len(VOCAB), hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40,
             max_position_embeddings=LONGEST, local_attention=8, global_attn_every_n_layers=3, initializer_range=0.2,
             pad_token_id=0, bos_token_id=2, cls_token_id=2, eos_token_id=3, sep_token_id=3, attn_implementation="eager")
tiny("tiny-modernbert", ModernBertModel(ModernBertConfig(**small)), embedding, lambda config: config)
tiny("tiny-modernbert-labels", ModernBertForSequenceClassification(ModernBertConfig(
    **small, classifier_pooling="mean", id2label=LABELS, label2id={v: k for k, v in LABELS.items()})), classes, older)
