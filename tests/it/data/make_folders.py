"""Makes `folders/`: small checkpoints, and variations of their folders with what the reference libraries answer.

    python3 -m venv /tmp/py && /tmp/py/bin/pip install torch transformers==5.24.0 sentence-transformers==6.2.0
    /tmp/py/bin/python tests/it/data/make_folders.py

`folders/BASE/` is a checkpoint with random weights. `folders/cases.json` lists variations: files that are written or
taken away, tensors that are renamed or added, and the answers. `tests/it/folders.rs` makes each folder and compares.
"""

import json
import pathlib
import re
import shutil
import tempfile

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
    pipeline,
)

HERE = pathlib.Path(__file__).parent / "folders"
TEXTS = [
    "The parcel from Zürich came late, and the Box was broken!",
    "query: who wrote <ORDER> 42? Ask [MASK] or <USER>.",
    "  naïve CAFÉ 東京 co-op\tend",
    "a",
]
CORPUS = TEXTS + ["the quick brown fox", "The Box was late", "query passage who wrote came broken Zürich café order"]


def base_bert(folder):
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    texts = [form for text in CORPUS for form in (text, text.lower())]
    letters = sorted({c for text in texts for c in text if not c.isspace()})
    words = sorted({word for text in texts for word in re.findall(r"[^\W\d_]{2,}", text)})
    pieces = special + letters + [f"##{c}" for c in letters if c.isalpha()] + words
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces[:160])}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(t, tokenizer.token_to_id(t)) for t in ("[CLS]", "[SEP]")],
    )
    tokenizer.add_special_tokens(special)
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size() + 2, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=48, initializer_range=0.6, architectures=["BertModel"],
    )
    save(BertModel(config), tokenizer, folder)


def base_roberta(folder):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    # No initial alphabet: what was not seen gives nothing, as a small vocabulary is wanted here.
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=160, special_tokens=special, show_progress=False))
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), True, False)
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=50, type_vocab_size=1, initializer_range=0.6,
        architectures=["RobertaModel"],
    )
    save(RobertaModel(config), tokenizer, folder)


def base_xlmr(folder):
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    letters = sorted({c for text in CORPUS for c in text if not c.isspace()} | {"▁"})
    words = sorted({"▁" + word for text in CORPUS for word in text.split()})[:40]
    pieces += [(word, -4.0 - i / 50) for i, word in enumerate(words)] + [(c, -9.0) for c in letters] + [("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    config = XLMRobertaConfig(
        vocab_size=len(pieces), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=50, type_vocab_size=1, initializer_range=0.6, architectures=["XLMRobertaModel"],
    )
    save(XLMRobertaModel(config), tokenizer, folder)


def save(model, tokenizer, folder):
    folder.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "bias" in name or "LayerNorm" in name:
                weight.add_(torch.randn_like(weight) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = json.loads((folder / "config.json").read_text())
    config.pop("transformers_version", None)
    (folder / "config.json").write_text(json.dumps(config) + "\n")


def modules(*after):
    """`modules.json` of a Transformer and what comes after it, (kind, folder) each, in the older spelling."""
    lines = [("Transformer", "")] + list(after)
    return [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (kind, path) in enumerate(lines)
    ]


POOLED = modules(("Pooling", "1_Pooling"))
MEAN = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True}
NEW = {
    "Transformer": "sentence_transformers.base.modules.transformer.Transformer",
    "Pooling": "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
    "Dense": "sentence_transformers.base.modules.dense.Dense",
    "Normalize": "sentence_transformers.base.modules.normalize.Normalize",
    "LayerNorm": "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
}


def newer(lines):
    return [{**line, "type": NEW[line["type"].rsplit(".", 1)[1]]} for line in lines]


def numbers(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(*shape, generator=generator) * 0.5
    return {"shape": list(shape), "data": [round(float(v), 4) for v in values.flatten()]}


def cases():
    pooling = lambda config: {"modules.json": POOLED, "1_Pooling/config.json": config}
    plain = pooling(MEAN)
    options = lambda **keys: {"tokenizer_config.json": {"tokenizer_class": "BertTokenizer", **keys}}
    case = lambda name, files=None, base="bert", **more: {"name": name, "base": base, "files": files or {}, **more}
    token = lambda content, **more: {
        "content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, **more
    }
    # Pooling.
    yield case("no modules: the mean, not normalised")
    yield case("a sentence-transformers folder", plain)
    yield case("a class that is null", {**plain, "config_sentence_transformers.json": {"model_type": None}}, refused="model_type null")
    for key in ["cls_token", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]:
        yield case(f"pooling {key}", pooling({"word_embedding_dimension": 8, f"pooling_mode_{key}": True}))
    yield case("pooling by no mode is the mean", pooling({"word_embedding_dimension": 8, "pooling_mode_mean_tokens": False}))
    both = {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}
    yield case("several modes lie side by side", pooling(both))
    new = {"embedding_dimension": 8, "pooling_mode": ["lasttoken", "mean"], "include_prompt": True}
    yield case("several modes in the newer form", {**pooling(new), "modules.json": newer(POOLED)})
    yield case("one mode in the newer form", {**pooling({"embedding_dimension": 8, "pooling_mode": "max"}), "modules.json": newer(POOLED)})
    elsewhere = modules(("Pooling", "pool/ing"))
    yield case("pooling in another folder", {"modules.json": elsewhere, "pool/ing/config.json": {"word_embedding_dimension": 8, "pooling_mode_cls_token": True}})
    yield case("a pooling file that is missing", {"modules.json": POOLED}, refused="1_Pooling/config.json")
    # What comes after pooling.
    dense = {"in_features": 8, "out_features": 5, "bias": True, "activation_function": "torch.nn.modules.activation.Tanh"}
    after = modules(("Pooling", "1_Pooling"), ("Dense", "2_Dense"), ("Normalize", "3_Normalize"))
    layer = {"2_Dense/model.safetensors": {"linear.weight": numbers(5, 8), "linear.bias": numbers(5, seed=2)}}
    files = {"modules.json": after, "1_Pooling/config.json": MEAN, "2_Dense/config.json": dense}
    yield case("a dense layer, normalised", files, tensors=layer)
    gelu = {**dense, "bias": False, "activation_function": "torch.nn.modules.activation.GELU"}
    yield case("a dense layer without bias, GELU", {**files, "modules.json": newer(after), "2_Dense/config.json": gelu}, tensors={"2_Dense/model.safetensors": {"linear.weight": numbers(5, 8)}})
    for name in ["linear.Identity", "activation.ReLU", "activation.SiLU", "activation.Sigmoid"]:
        yield case(f"a dense layer, {name}", {**files, "2_Dense/config.json": {**dense, "activation_function": f"torch.nn.modules.{name}"}}, tensors=layer)
    silent = {key: value for key, value in dense.items() if key not in ("bias", "activation_function")}
    yield case("a dense layer that says neither bias nor activation", {**files, "2_Dense/config.json": silent}, tensors=layer)
    yield case("a dense layer with a residual", {**files, "2_Dense/config.json": {**dense, "use_residual": True}}, tensors={"2_Dense/model.safetensors": {**layer["2_Dense/model.safetensors"], "residual.weight": numbers(5, 8, seed=3)}})
    yield case("an unknown activation", {**files, "2_Dense/config.json": {**dense, "activation_function": "torch.nn.modules.activation.Softmax"}}, tensors=layer, refused="activation_function")
    norm = modules(("Pooling", "1_Pooling"), ("LayerNorm", "2_LayerNorm"), ("Dropout", "3_Dropout"))
    yield case("a norm and a dropout", {"modules.json": norm, "1_Pooling/config.json": MEAN, "2_LayerNorm/config.json": {"dimension": 8}, "3_Dropout/config.json": {"dropout": 0.5}}, tensors={"2_LayerNorm/model.safetensors": {"norm.weight": numbers(8), "norm.bias": numbers(8, seed=2)}})
    for kind in ["WeightedLayerPooling", "CNN", "LSTM", "BoW", "WordWeights"]:
        line = [*POOLED[:1], {"idx": 1, "name": "1", "path": "1", "type": f"sentence_transformers.models.{kind}"}, *POOLED[1:]]
        yield case(f"module {kind}", {**plain, "modules.json": [{**m, "name": str(i)} for i, m in enumerate(line)]}, refused=kind)
    sparse = "sentence_transformers.sparse_encoder.models.SpladePooling"
    yield case("a sparse model", {**plain, "modules.json": [POOLED[0], {**POOLED[1], "type": sparse}]}, refused="SpladePooling")
    yield case("the encoder in 0_Transformer", {"modules.json": [{**POOLED[0], "path": "0_Transformer"}, POOLED[1]], "1_Pooling/config.json": MEAN, "0_Transformer/sentence_bert_config.json": {"max_seq_length": 9}}, folder="0_Transformer")
    # sentence-transformers' own files.
    for file in ["bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"]:
        yield case(f"sentence_{file}_config.json", {**plain, f"sentence_{file}_config.json": {"max_seq_length": 9, "do_lower_case": False}})
    yield case("lower case before the tokenizer", {**plain, **options(do_lower_case=False), "sentence_bert_config.json": {"max_seq_length": None, "do_lower_case": True}})
    prompts = {"prompts": {"query": "query: ", "passage": "passage: "}, "default_prompt_name": "query"}
    yield case("a default prompt", {**plain, "config_sentence_transformers.json": prompts})
    yield case("prompts without a default", {**plain, "config_sentence_transformers.json": {**prompts, "default_prompt_name": None}})
    yield case("a prompt that is not pooled", {**pooling({**MEAN, "include_prompt": False}), "config_sentence_transformers.json": prompts})
    yield case("a prompt that is not pooled, several modes", {**pooling({"word_embedding_dimension": 8, "pooling_mode": ["cls", "max", "weightedmean", "lasttoken"], "include_prompt": False}), "config_sentence_transformers.json": prompts})
    yield case("a default prompt of no text", {**plain, "config_sentence_transformers.json": {**prompts, "default_prompt_name": "other"}}, refused="default_prompt_name")
    yield case("fewer numbers", {**plain, "config_sentence_transformers.json": {"truncate_dim": 3}})
    yield case("an argument for the tokenizer", {**plain, "sentence_bert_config.json": {"tokenizer_args": {"do_lower_case": False}}}, refused="tokenizer_args")
    # What stands beside and is not read.
    yield case("a SetFit folder", {**plain, "config_setfit.json": {"labels": ["no", "yes"]}, "model_head.pkl": "a pickle"}, note="model_head.pkl")
    yield case("a folder with another head", {**plain, "classifier.joblib": "a pickle"}, note="classifier.joblib is a pickle")
    # The tokenizer's files.
    yield case("cased by tokenizer_config.json", {**plain, **options(do_lower_case=False)})
    yield case("accents are kept", {**plain, **options(strip_accents=False)})
    yield case("accents are stripped", {**plain, **options(do_lower_case=False, strip_accents=True)})
    yield case("Chinese characters stay together", {**plain, **options(tokenize_chinese_chars=False)})
    yield case("the general class takes tokenizer.json as it is", {**plain, **options(tokenizer_class="PreTrainedTokenizerFast", do_lower_case=False, pad_token="[PAD]")})
    yield case("a class that is not supported", {**plain, **options(tokenizer_class="BertJapaneseTokenizer")}, refused="BertJapaneseTokenizer")
    yield case("model_max_length", {**plain, **options(model_max_length=7)})
    yield case("max_len", {**plain, **options(max_len=6)})
    yield case("no limit", {**plain, **options(model_max_length=1000000000000000019884624838656)})
    decoder = {str(i): token(t, special=True) for i, t in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    more = {"160": token("<ORDER>", special=False), "161": token("<USER>", special=True)}
    yield case("added tokens of tokenizer_config.json", {**plain, **options(added_tokens_decoder={**decoder, **more})})
    yield case("added_tokens.json", {**plain, **options(), "added_tokens.json": {"<ORDER>": 160, "<USER>": 161}})
    yield case("special_tokens_map.json", {**plain, **options(), "special_tokens_map.json": {"additional_special_tokens": ["<USER>", "<ORDER>"], "mask_token": token("[MASK]", lstrip=True)}})
    yield case("extra special tokens", {**plain, **options(extra_special_tokens=["<ORDER>"])})
    yield case("another special token", {**plain, **options(cls_token="the", user_token="<USER>")})
    yield case("special tokens are split", {**plain, **options(split_special_tokens=True)})
    # Checkpoints.
    yield case("gamma and beta", rename=[["LayerNorm.weight", "LayerNorm.gamma"], ["LayerNorm.bias", "LayerNorm.beta"]])
    yield case("a prefix", rename=[["^", "bert."]])
    yield case("a prefix that no model has", rename=[["^", "module."]], refused="is missing; the nearest is")
    yield case("several files of weights", plain, shards=3)
    edit = lambda **keys: {"config.json": keys}
    yield case("for pretraining", edit(architectures=["BertForPreTraining"]), rename=[["^", "bert."]], add={"cls.predictions.bias": numbers(162)}, note="cls.predictions.bias")
    yield case("for masked language", edit(architectures=["BertForMaskedLM"]), rename=[["^", "bert."]], add={"cls.predictions.bias": numbers(162)}, note="cls.predictions.bias")
    yield case("an architecture of another name", edit(architectures=["LegalBertModel"]))
    yield case("no architectures", edit(architectures=None))
    yield case("labels of an embedding model", edit(id2label={"0": 0, "1": {}}))
    yield case("question answering", edit(architectures=["BertForQuestionAnswering"]), rename=[["^", "bert."]], refused="model.task")
    yield case("more layers than are used", plain, add={"encoder.layer.1.output.dense.bias": numbers(8)}, note="encoder.layer.1.output.dense.bias")
    yield case("absent keys", drop=["hidden_act", "type_vocab_size", "layer_norm_eps", "pad_token_id"])
    for act in ["gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "quick_gelu"]:
        yield case(f"activation {act}", edit(hidden_act=act))
    yield case("activation mish", edit(hidden_act="mish"), refused="hidden_act")
    yield case("a decoder", edit(is_decoder=True), refused="is_decoder")
    yield case("a quantised checkpoint", edit(quantization_config={"quant_method": "fp8"}), refused="quantization_config")
    yield case("a checkpoint that is not quantised", edit(quantization_config=None))
    yield case("vocab.txt only", {"tokenizer.json": None, "vocab.txt": "[PAD]\n[UNK]\n"}, refused="save_pretrained")
    # Heads.
    head = {"classifier.weight": numbers(3, 8), "classifier.bias": numbers(3, seed=2)}
    labelled = edit(architectures=["BertForSequenceClassification"], id2label={"0": 0, "1": 1.5, "2": "c"})
    yield case("labels that are numbers", labelled, rename=[["^", "bert."]], add=head)
    named = edit(architectures=None, id2label={"0": "a", "1": "b", "2": "c"})
    yield case("a classifier without architectures", named, rename=[["^", "bert."]], add=head, refused="model.task")
    yield case("its task is asked for", named, rename=[["^", "bert."]], add=head, task="text-classification")
    marked = edit(architectures=["BertForSequenceClassification"], id2label={"0": "a", "1": "b", "2": "c"}, sentence_transformers={"version": "5.1.0", "activation_fn": "torch.nn.modules.linear.Identity"})
    for task in [None, "text-classification"]:
        yield case(f"a cross-encoder of three labels, task {task}", marked, rename=[["^", "bert."]], add=head, **({"task": task} if task else {}))
    yield case("one label that nobody calls a score", edit(architectures=["BertForSequenceClassification"], id2label={"0": "a"}), rename=[["^", "bert."]], add={"classifier.weight": numbers(1, 8), "classifier.bias": numbers(1, seed=2)}, task="text-classification", note="set model.task: text-ranking")
    yield case("its encoder is asked for", named, rename=[["^", "bert."]], add=head, task="text-embedding", note="classifier.weight")
    yield case("modules.json with a classifier", {**plain, **edit(architectures=["BertForSequenceClassification"])}, rename=[["^", "bert."]], add=head, note="classifier.weight")
    # Other families.
    for base, kind in [("roberta", "RobertaTokenizer"), ("xlmr", "XLMRobertaTokenizer")]:
        yield case(f"{base}", base=base)
        yield case(f"{base} with a prefix", base=base, rename=[["^", "roberta."]])
        for prefix in [True, False]:
            yield case(f"{base} with add_prefix_space {prefix}", {"tokenizer_config.json": {"tokenizer_class": kind, "add_prefix_space": prefix, "model_max_length": 48}}, base=base)
    yield case("CamemBERT", edit(model_type="camembert", architectures=["CamembertModel"]), base="xlmr", rename=[["^", "roberta."]])
    yield case("a general tokenizer of xlmr", {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}}, base="xlmr")
    yield case("a padding id that texts have", edit(pad_token_id=0), base="roberta", refused="pad_token_id is 0")
    yield case("roberta without keys", base="roberta", drop=["pad_token_id", "hidden_act", "layer_norm_eps"])


def make(case, folder):
    """The folder of a case, as `tests/it/folders.rs` makes it."""
    shutil.copytree(HERE / case["base"], folder)
    tensors = load_file(folder / "model.safetensors")
    for pattern, by in case.get("rename", []):
        tensors = {re.sub(pattern, by, name, count=1): tensor for name, tensor in tensors.items()}
    tensor = lambda value: torch.tensor(value["data"]).reshape(value["shape"])
    tensors |= {name: tensor(value) for name, value in case.get("add", {}).items()}
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in case.get("drop", [])}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if parts := case.get("shards"):
        names, index = sorted(tensors), {}
        for part in range(parts):
            file = f"model-{part + 1:05}-of-{parts:05}.safetensors"
            held = {name: tensors[name] for name in names[part::parts]}
            save_file(held, folder / file, {"format": "pt"})
            index |= {name: file for name in held}
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    if moved := case.get("folder"):
        held = list(folder.iterdir())
        (folder / moved).mkdir()
        for path in held:
            path.rename(folder / moved / path.name)
    for name, content in case["files"].items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == "config.json":
            content = json.loads(path.read_text()) | content
        if content is None:
            path.unlink()
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
    for name, held in case.get("tensors", {}).items():
        save_file({key: tensor(value) for key, value in held.items()}, folder / name, {"format": "pt"})


def answer(case, folder):
    classifies = "labels that are" in case["name"] or "cross-encoder" in case["name"]
    task = case.get("task") or ("text-classification" if classifies else "text-embedding")
    if task == "text-embedding":
        model = SentenceTransformer(str(folder), device="cpu")
        rows = [model.encode(text) for text in TEXTS]
        return [{"embedding": [round(float(value), 5) for value in row]} for row in rows]
    classify = pipeline("text-classification", str(folder), top_k=None, device="cpu")
    # What CrossEncoder does with its activation Identity.
    function = {"function_to_apply": "none"} if "cross-encoder" in case["name"] else {}
    rows = [classify([text], **function)[0] for text in TEXTS]
    return [{"scores": {str(row["label"]): round(row["score"], 5) for row in line}} for line in rows]


def main():
    torch.manual_seed(0)
    shutil.rmtree(HERE, ignore_errors=True)
    for name, base in {"bert": base_bert, "roberta": base_roberta, "xlmr": base_xlmr}.items():
        base(HERE / name)
    done = []
    for case in cases():
        with tempfile.TemporaryDirectory() as place:
            folder = pathlib.Path(place) / "model"
            make(case, folder)
            if "refused" not in case:
                case["answers"] = answer(case, folder)
        done.append(case)
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in done)
    (HERE / "cases.json").write_text(f'{{"texts": {json.dumps(TEXTS, ensure_ascii=False)}, "cases": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
