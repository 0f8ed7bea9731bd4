#!/usr/bin/env python3
"""Pairs of texts, and texts that are kept from their end: tiny checkpoints with what sentence-transformers and transformers answer.

    pip install sentence-transformers==6.2.0 transformers==5.24.0 torch
    python tests/it/data/make_texts.py

Writes a folder each with the model and golden.json ([{"input": …, "output": …}] as `tidemill predict` prints it).
"""
import json, os, pathlib, shutil

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (BertConfig, BertForSequenceClassification, BertForTokenClassification, BertModel, RobertaConfig,
                          RobertaForSequenceClassification, pipeline)

HERE = pathlib.Path(__file__).resolve().parent
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = "the a tide pond gate wheel mill fills shut drive with whole at once and is of what readers see exactly".split()
PIECES = [*SPECIALS, *WORDS, *"abcdefghijklmnopqrstuvwxyz.,!?", *("##" + c for c in "abcdefghijklmnopqrstuvwxyz")]
VOCAB = {piece: place for place, piece in enumerate(dict.fromkeys(PIECES))}
SHORT = "The tide fills the pond."
LONG = "Shut the gate and drive the wheel with the whole pond at once, " * 3
WORD = "exactlyonce" * 60 + " is what readers see, and the tide is " + "q" * 300 + " of the mill"
TEXTS = [SHORT, LONG, "", "a", WORD, "See, the whole mill and wheel is what the tide drives at once and the readers see it"]
PAIRS = [(SHORT, "a pond"), (LONG, "the gate"), ("the gate", LONG), (LONG, LONG + "a"), (LONG + "a", LONG), (WORD, LONG), ("", SHORT), (SHORT, WORD)]


def wordpiece(pair="[CLS] $A [SEP] $B:1 [SEP]:1", single="[CLS] $A [SEP]"):
    t = Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]"))
    t.normalizer, t.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    t.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=[(s, VOCAB[s]) for s in ("[CLS]", "[SEP]")])
    t.add_special_tokens(SPECIALS)
    return t


def unigram():
    pieces = [*SPECIALS, "▁", *("▁" + w for w in WORDS), *"abcdefghijklmnopqrstuvwxyz.,!?"]
    t = Tokenizer(models.Unigram([(p, -2.0 - 0.1 * place) for place, p in enumerate(pieces)], unk_id=1))
    t.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    t.pre_tokenizer = pre_tokenizers.Metaspace()
    t.post_processor = processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2))
    t.add_special_tokens(SPECIALS)
    return t, len(pieces)


def saved(name, model, tokenizer, config, **more):
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    model.eval().save_pretrained(out)
    (out / "generation_config.json").unlink(missing_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    names = {key: token for key, token in zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIALS)}
    dump(out / "tokenizer_config.json", names | config)
    if more:
        written = json.loads((out / "config.json").read_text())
        dump(out / "config.json", written | more)
    return out


def dump(path, value):
    path.write_text(json.dumps(value) + "\n")


def golden(out, inputs, answer):
    dump(out / "golden.json", [{"input": value, "output": answer(value)} for value in inputs])


def labelled(names, scores):
    best = max(range(len(names)), key=lambda place: scores[place])
    return {"label": names[best], "score": scores[best], "scores": dict(zip(names, scores))}


torch.manual_seed(20261126)
bert = dict(vocab_size=len(VOCAB), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=24, initializer_range=1.0)
pairs = [{"text": first, "text_pair": second} for first, second in PAIRS]

# A cross-encoder, with the activation that its configuration names, and from each side.
for name, side in (("tiny-bert-pairs", "right"), ("tiny-bert-pairs-left", "left")):
    kept = {"tokenizer_class": "BertTokenizer", "model_max_length": 24, "truncation_side": side}
    mark = {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.0.0"}
    out = saved(name, BertForSequenceClassification(BertConfig(num_labels=1, **bert)), wordpiece(), kept, sentence_transformers=mark)
    cross = CrossEncoder(str(out), device="cpu")
    golden(out, pairs, lambda value: labelled(["LABEL_0"], [float(cross.predict([(value["text"], value["text_pair"])])[0])]))

# A classifier of texts or of pairs, whose tokens have no types.
tokenizer, size = unigram()
three = {0: "no", 1: "maybe", 2: "yes"}
config = RobertaConfig(**(bert | dict(vocab_size=size, max_position_embeddings=22)), type_vocab_size=1, pad_token_id=0, id2label=three, label2id={v: k for k, v in three.items()})
out = saved("tiny-roberta-pairs", RobertaForSequenceClassification(config), tokenizer, {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 20})
pipe = pipeline("text-classification", str(out), device="cpu")


def classified(value):
    scores = {one["label"]: one["score"] for one in pipe(value, top_k=None, truncation=True)}
    return labelled(list(three.values()), [scores[name] for name in three.values()])


golden(out, [*({"text": text} for text in TEXTS), *pairs], classified)

# Texts that are kept from their end, with a tokenizer that closes with nothing.
out = saved("tiny-bert-end", BertModel(BertConfig(**bert)), wordpiece(single="[CLS] $A"), {"tokenizer_class": "PreTrainedTokenizerFast", "truncation_side": "left", "model_max_length": 12})
shutil.rmtree(out / "1_Pooling", ignore_errors=True)
(out / "1_Pooling").mkdir()
dump(out / "1_Pooling" / "config.json", {"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True})
kinds = ("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")
dump(out / "modules.json", [{"idx": i, "name": str(i), "path": path, "type": "sentence_transformers.models." + kind} for i, (kind, path) in enumerate(kinds)])
embed = SentenceTransformer(str(out), device="cpu")
golden(out, [{"text": text} for text in TEXTS], lambda value: {"embedding": embed.encode([value["text"]])[0].tolist()})

# Spans at the end of long texts.
labels = {0: "O", 1: "B-A", 2: "I-A", 3: "B-B"}
config = BertConfig(id2label=labels, label2id={v: k for k, v in labels.items()}, **bert)
out = saved("tiny-bert-tokens-end", BertForTokenClassification(config), wordpiece(), {"tokenizer_class": "BertTokenizer", "truncation_side": "left", "model_max_length": 14})
pipe = pipeline("token-classification", str(out), device="cpu", aggregation_strategy="simple")


def found(value):
    text = value["text"]
    return {"spans": [{"label": s["entity_group"], "score": float(s["score"]), "start": s["start"], "end": s["end"], "word": text[s["start"]:s["end"]]} for s in pipe(text)]}


golden(out, [{"text": text} for text in TEXTS if text], found)
