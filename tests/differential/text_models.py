"""Folders of text models, and what transformers and sentence-transformers answer with them."""
import json
import math
import shutil
import warnings

import torch
import transformers
from safetensors.torch import save_file
from transformers import modeling_utils
from transformers.core_model_loading import revert_weight_conversion

import texts
from tokens import Tokens

warnings.filterwarnings("ignore")
NAMES = {"bert": "Bert", "distilbert": "DistilBert", "roberta": "Roberta", "xlm-roberta": "XLMRoberta", "camembert": "Camembert", "mpnet": "MPNet",
         "modernbert": "ModernBert", "vit": "ViT", "electra": "Electra", "albert": "Albert"}
PREFIX = {"bert": "bert.", "distilbert": "distilbert.", "roberta": "roberta.", "xlm-roberta": "roberta.", "camembert": "roberta.", "mpnet": "mpnet.", "modernbert": "model."}
missing = set()  # tensors that the last loads did not find, and made up


def noticing(*args, original=modeling_utils.log_state_dict_report, **named):
    missing.update(named["loading_info"].missing_keys)
    return original(*args, **named)


modeling_utils.log_state_dict_report = noticing
transformers.utils.logging.disable_progress_bar()


def dump(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else (json.dumps(value, ensure_ascii=False) + "\n").encode())


def configuration(o, family, tokens, small):
    """The keys of config.json that make the model."""
    heads = o("heads", 2, 1, 4)
    hidden = o("hidden", 8 if small else 16, 24, 32)
    layers = o("layers", 1, 2, 3)
    act = o("hidden_act", "gelu", "relu", "gelu_new", "silu", "swish", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "tanh", "gelu_python", "mish", "relu2", "gelu_10", "leaky_relu", "linear", "sigmoid")
    eps = o("layer_norm_eps", 1e-5 if "rob" in family or family in ("camembert", "modernbert") else 1e-12, 1e-6, 0.1, 1e-12)
    positions = o("positions", 40, 24, 130, 300)
    pad = o("pad_token_id", "tokenizer's", 0, 1, 3, 5, None, 7)
    pad = tokens.pad if pad == "tokenizer's" else pad
    base = dict(vocab_size=tokens.size + o("vocab beyond", 0, 5), pad_token_id=pad)
    if family == "distilbert":
        return base | dict(dim=hidden, n_layers=layers, n_heads=heads, hidden_dim=20, activation=act, max_position_embeddings=positions, sinusoidal_pos_embds=o("sinusoidal", False, True))
    usual = base | dict(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, intermediate_size=o("intermediate", 20, 33))
    if family == "modernbert":
        every = o("global_attn_every_n_layers", 3, 1, 2)
        usual |= dict(max_position_embeddings=positions, hidden_activation=act, norm_eps=eps, local_attention=o("local_attention", 8, 4, 128, 6, 7), global_attn_every_n_layers=every,
                      norm_bias=o("norm_bias", False, True), attention_bias=o("attention_bias", False, True), mlp_bias=o("mlp_bias", False, True),
                      classifier_pooling=o("classifier_pooling", "cls", "mean"), classifier_bias=o("classifier_bias", False, True), classifier_activation=o("classifier_activation", "gelu", "relu", "silu", "tanh"),
                      bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
        rope = o("rope", "default", "old keys", "parameters", "no local", "scaled", "layer types")
        if rope == "old keys":
            usual |= dict(global_rope_theta=5000.0, local_rope_theta=700.0)
        elif rope == "parameters":
            usual |= dict(rope_parameters={"full_attention": {"rope_type": "default", "rope_theta": 5000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 300.0}})
        elif rope == "no local":
            usual |= dict(global_rope_theta=3000.0, local_rope_theta=None)
        elif rope == "scaled":
            usual |= dict(rope_parameters={"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}, "sliding_attention": {"rope_type": "default", "rope_theta": 300.0}})
        elif rope == "layer types":
            usual |= dict(layer_types=["sliding_attention"] * (layers - 1) + ["full_attention"])
        return usual
    usual |= dict(hidden_act=act, layer_norm_eps=eps)
    if family == "mpnet":
        return usual | dict(max_position_embeddings=positions + 2, relative_attention_num_buckets=o("relative_attention_num_buckets", 32, 8, 16))
    if family in ("roberta", "xlm-roberta", "camembert"):
        positions += 2
    return usual | dict(max_position_embeddings=positions, type_vocab_size=o("type_vocab_size", 1 if "rob" in family or family == "camembert" else 2, 2, 3, 1))


def randomise(model, seed):
    """Weights that make every part of the model count."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() == 1:
                norm = "norm" in name.lower() and name.endswith("weight")
                p.copy_(1 + 0.3 * noise if norm else 0.3 * noise)
            elif "embedding" in name or "relative_attention_bias" in name or p.dim() > 2:
                p.copy_(noise * (1.0 if p.dim() == 2 else 0.3))
            else:
                p.copy_(noise * 1.5 / math.sqrt(p.shape[-1]))
    return model.eval()


def store(o, folder, model, family, config):
    """Weights and config.json under `folder`, in one of the many ways that they have been written in."""
    state = {k: v.detach().clone() for k, v in model.state_dict().items()}
    tied = getattr(model, "_tied_weights_keys", None) or {}
    if o("tied weights", "left out", "written") == "left out":
        state = {k: v for k, v in state.items() if k not in tied}
    base = type(model).__name__.endswith("Model")
    names = o("weight names", "own", "new", "gamma and beta", "prefix", "position_ids", "module.", "a stranger", rate=o.rate)
    if names != "new":
        state = dict(revert_weight_conversion(model, state))  # as save_pretrained does
    if names == "gamma and beta":
        state = {k.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): v for k, v in state.items()}
    elif names == "prefix" and base:
        state = {PREFIX.get(family, "") + k: v for k, v in state.items()}
    elif names == "position_ids" and family != "vit":
        at = next((k.rsplit("word_embeddings", 1)[0] for k in state if "word_embeddings" in k), "embeddings.")
        state[at + "position_ids"] = torch.arange(config.max_position_embeddings)[None]
    elif names == "module.":
        state = {"module." + k: v for k, v in state.items()}
    elif names == "a stranger":
        state["stranger.weight"] = torch.ones(2, 3)
    lost = o("a tensor is missing", False, True, rate=o.rate / 4)
    if lost:
        del state[o.rng("which tensor").choice(sorted(state))]
    dtype = o("weights dtype", "float32", "float16", "bfloat16", "float64", "mixed")
    if dtype == "mixed":
        kinds = [torch.float16, torch.bfloat16, torch.float32]
        state = {k: v.to(kinds[i % 3]) if v.is_floating_point() else v for i, (k, v) in enumerate(sorted(state.items()))}
    elif dtype != "float32":
        state = {k: v.to(getattr(torch, dtype)) if v.is_floating_point() else v for k, v in state.items()}
    state = {k: v.contiguous() for k, v in state.items()}
    shards = o("shards", 1, 2, 5, "2 and whole")
    metadata = {"format": "pt"} if o("safetensors metadata", True, False) else None
    folder.mkdir(parents=True, exist_ok=True)
    if shards in (1, "2 and whole"):
        save_file(state, folder / "model.safetensors", metadata)
    if shards != 1:
        count = 2 if shards == "2 and whole" else shards
        keys, where = sorted(state), {}
        for n in range(count):
            name = f"model-{n + 1:05}-of-{count:05}.safetensors"
            part = {k: state[k] for k in keys[n::count]}
            where |= dict.fromkeys(part, name)
            save_file(part, folder / name, metadata)
        dump(folder / "model.safetensors.index.json", {"metadata": {"total_size": sum(v.nbytes for v in state.values())}, "weight_map": where})
    written = json.loads(config.to_json_string(use_diff=o("config.json keys", "all", "changed ones") != "all"))
    written["architectures"] = o("architectures", [type(model).__name__], "absent", None, ["MyOwnModel"], [NAMES[family] + "Model"], rate=o.rate / 2)
    if written["architectures"] == "absent":
        del written["architectures"]
    if o("dtype key", "dtype", "torch_dtype") == "torch_dtype":
        written["torch_dtype"] = "float32" if dtype in ("mixed", "float64") else dtype
        written.pop("dtype", None)
    drop = o("config.json without", None, "hidden_act", "activation", "layer_norm_eps", "pad_token_id", "type_vocab_size", "model_type", "norm_eps", "hidden_activation", "id2label", "label2id",
             "problem_type", "local_attention", "relative_attention_num_buckets", "rope_parameters", "layer_types", "dtype", "classifier_pooling", "norm_bias", "bos_token_id")
    written.pop(drop, None)
    null = o("config.json null", None, "hidden_act", "layer_norm_eps", "pad_token_id", "type_vocab_size", "problem_type", "id2label", "position_embedding_type", "intermediate_size", "num_labels")
    if null:
        written[null] = None
    written |= o("config.json with", {}, {"is_decoder": True}, {"position_embedding_type": "absolute"}, {"position_embedding_type": "relative_key"}, {"position_embedding_type": "relative_key_query"},
                 {"chunk_size_feed_forward": 4}, {"add_cross_attention": True}, {"output_hidden_states": True}, {"output_attentions": True}, {"return_dict": False}, {"torchscript": True},
                 {"pruned_heads": {"0": [1]}}, {"_name_or_path": "/elsewhere"}, {"auto_map": {"AutoModel": "own.Model"}}, {"adapters": {"adapters": {}}}, {"tie_word_embeddings": False},
                 {"use_cache": False}, {"function_to_apply": "none"}, {"task_specific_params": {"text-classification": {"function_to_apply": "sigmoid"}}}, {"reference_compile": False},
                 {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, {"layer_norm_eps": 1e-3}, {"num_labels": 3}, {"tokenizer_class": "BertTokenizer"}, {"sliding_window": 4},
                 {"attn_implementation": "eager"}, {"_attn_implementation": "eager"}, {"hidden_dropout_prob": 0.5}, {"model_max_length": 8}, {"max_length": 8}, {"use_bfloat16": True}, {"is_causal": True},
                 {"use_bidirectional_attention": False}, {"_num_labels": 5}, {"embedding_size": 7}, {"hidden_size_per_layer": 3}, {"rescale_layer": True})
    dump(folder / "config.json", written)
    return lost


def build(o, folder, ending, small, extra=None, pairs=False):
    """A checkpoint: tokenizer, weights, configuration. What the caller wants to know of it."""
    families = [f for f in PREFIX]
    family = o("family", families[0], *families[1:], *families[1:], rate=0.85)
    if o("unsupported family", "", "electra", "albert", rate=o.rate / 12):
        family = o("unsupported family", "", "electra", "albert", rate=o.rate / 12)
    tokens = Tokens(o, family, small, pairs)
    kind = getattr(transformers, NAMES[family] + "Config")
    config = kind(**configuration(o, family, tokens, small) | (extra or {}))
    config.architectures = None
    model = getattr(transformers, NAMES[family] + ending, None) or getattr(transformers, NAMES[family] + "Model")
    model = randomise(model(config), o.seed)
    store(o, folder, model, family, config)
    for name, value in tokens.files.items():
        dump(folder / name, value)
    return family, model.config, tokens


def places(config):
    """The most tokens that a model takes."""
    most = config.max_position_embeddings
    if config.model_type in ("roberta", "xlm-roberta", "camembert"):
        return most - (1 if config.pad_token_id is None else config.pad_token_id + 1)
    return most - 2 if config.model_type == "mpnet" else most


def each(inputs, answer):
    """The answers one by one: where the reference fails, a note."""
    expected = []
    for value in inputs:
        try:
            expected.append(answer(value))
        except Exception as error:  # whatever the library raises
            expected.append({"note": f"{type(error).__name__}: {str(error)[:150]}"})
    return expected


def pipeline(task, folder):
    from transformers import pipeline as make
    missing.clear()
    pipe = make(task, model=str(folder), tokenizer=str(folder), device="cpu", dtype=torch.float32)
    pipe.model.eval()
    pipe.tokenizer.model_max_length = min(pipe.tokenizer.model_max_length, places(pipe.model.config))
    return pipe


def padded(tokenizer, tokens):
    """sentence-transformers asks for a padding token of the single text that nothing pads."""
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(tokens.pad)


def resave(o, folder, load):
    """Now and then the folder is what today's library writes of it."""
    if o("saved again", False, True):
        other = folder.parent / "again"
        load().save_pretrained(str(other))
        shutil.rmtree(folder)
        other.rename(folder)
        (folder / "README.md").unlink(missing_ok=True)


def plain(values):
    return [float(v) for v in values]


# Embeddings.

POOLING = ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
OLD = dict(zip(POOLING, ["pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_mean_tokens", "pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"]))


def embed(o, folder, small):
    from sentence_transformers import SentenceTransformer
    layout = o("layout", "modules.json", "0_Transformer", "bare", "deep")
    home = folder / {"0_Transformer": "0_Transformer", "deep": "a/b"}.get(layout, "")
    ending = o("class", "Model", "ForMaskedLM", "ForPreTraining", "ForQuestionAnswering", "ForNextSentencePrediction")
    family, config, tokens = build(o, home, ending, small)
    hidden = config.hidden_size
    if layout != "bare":
        modules(o, folder, home, hidden)
    inputs = [{"text": t} for _, t in texts.several(o.rng("texts"), small)]

    def load():
        return SentenceTransformer(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    resave(o, folder, load)

    def reference():
        missing.clear()
        model = load().eval()
        padded(model.tokenizer, tokens)
        model.max_seq_length = min(model.max_seq_length or places(config), places(model[0].auto_model.config))  # else RoBERTa's ends in an index error
        return lambda value: {"embedding": plain(model.encode([value["text"]], batch_size=1, show_progress_bar=False)[0])}
    return inputs, reference, [], lambda name: "pooler." in name and not name.startswith("classifier")


def snake(name):
    """The file of a module's class."""
    return {"LayerNorm": "layer_norm", "WeightedLayerPooling": "weighted_layer_pooling"}.get(name, name.lower())


def modules(o, folder, home, hidden):
    """modules.json and what it names."""
    old = o("module names", True, False)
    where = lambda name: ("sentence_transformers.models." + name if old else
                          {"Transformer": "sentence_transformers.base.modules.transformer.Transformer", "Dense": "sentence_transformers.base.modules.dense.Dense",
                           "Normalize": "sentence_transformers.base.modules.normalize.Normalize", "Router": "sentence_transformers.base.modules.router.Router"}.get(name, f"sentence_transformers.sentence_transformer.modules.{snake(name)}.{name}"))
    path = "" if home == folder else str(home.relative_to(folder))
    chain = [("Transformer", path)]
    # The transformer's own file.
    own = {"max_seq_length": o("max_seq_length", 40, 8, 16, 300, None, 2, 3), "do_lower_case": o("st do_lower_case", False, True)}
    if own["max_seq_length"] == 40 and o("max_seq_length key", "absent", "there") == "absent":
        del own["max_seq_length"]
    own |= o("sentence_bert_config with", {}, {"model_args": {}}, {"tokenizer_args": {"model_max_length": 7}}, {"tokenizer_args": {"do_lower_case": False}}, {"tokenizer_args": {"truncation_side": "left"}},
             {"config_args": {"num_hidden_layers": 1}}, {"processing_kwargs": {"text": {"max_length": 6}}}, {"processing_kwargs": {"text": {"truncation": False}}}, {"query_length": 5},
             {"model_args": {"attn_implementation": "eager"}}, {"unpad_inputs": False}, {"transformer_task": "feature-extraction"}, {"transformer_task": "fill-mask"},
             {"modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}, "module_output_name": "token_embeddings"},
             {"modality_config": {"text": {"method": "forward", "method_output_name": "pooler_output"}}, "module_output_name": "sentence_embedding"},
             {"processing_kwargs": {"text": {"add_special_tokens": False}}}, {"tokenizer_kwargs": {"model_max_length": 6}}, {"processor_kwargs": {"model_max_length": 6}}, {"cache_dir": None})
    name = o("sentence_bert_config name", "sentence_bert_config.json", "absent", "sentence_roberta_config.json", "sentence_distilbert_config.json", "sentence_xlm-roberta_config.json", "sentence_mpnet_config.json", "two")
    if name == "two":
        dump(home / "sentence_distilbert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    if name != "absent":
        dump(home / (name if name != "two" else "sentence_bert_config.json"), own)
    width = hidden
    odd = o("unsupported module", "", "WeightedLayerPooling", "CNN", "LSTM", "Router", "SpladePooling", "MultiVectorMask", rate=o.rate / 6)
    if odd in ("WeightedLayerPooling", "CNN", "LSTM"):
        from sentence_transformers.sentence_transformer import modules as st
        made = {"WeightedLayerPooling": lambda: st.WeightedLayerPooling(hidden, num_hidden_layers=1, layer_start=0), "CNN": lambda: st.CNN(hidden, out_channels=4, kernel_sizes=[1, 3]), "LSTM": lambda: st.LSTM(hidden, 4)}[odd]()
        (folder / "1_Odd").mkdir()
        made.save(str(folder / "1_Odd"))
        chain.append((odd, "1_Odd"))
        width = {"WeightedLayerPooling": hidden, "CNN": 8, "LSTM": 8}[odd]
    before = o("dense before pooling", False, True, rate=o.rate / 3)
    if before:
        dense(o, folder / "1_Dense", width, width + 2, "token_embeddings", "before ")
        chain.append(("Dense", "1_Dense"))
        width += 2
    # Pooling.
    modes = o("pooling", ["mean"], ["cls"], ["max"], ["mean_sqrt_len_tokens"], ["weightedmean"], ["lasttoken"], ["cls", "mean"], ["mean", "max"], ["max", "mean"], ["mean", "weightedmean"], ["cls", "lasttoken", "max"],
              ["mean_sqrt_len_tokens", "mean"], [], POOLING, rate=max(o.rate, 0.4))
    spelling = o("pooling spelling", "old", "new", "new list", "both", "old only true ones", rate=0.5)
    pool = {}
    if spelling in ("old", "both", "old only true ones"):
        pool = {"word_embedding_dimension": width} | {OLD[m]: m in modes for m in POOLING if spelling != "old only true ones" or m in modes}
    if spelling == "both":
        pool |= {"pooling_mode": "max"}
    if spelling in ("new", "new list"):
        pool = {"embedding_dimension": width, "pooling_mode": (modes[0] if len(modes) == 1 and spelling == "new" else modes) or "mean"}
    if o("pooling dimension key", "usual", "other") == "other":
        pool = {{"word_embedding_dimension": "embedding_dimension", "embedding_dimension": "word_embedding_dimension"}.get(k, k): v for k, v in pool.items()}
    include = o("include_prompt", "absent", True, False)
    if include != "absent":
        pool["include_prompt"] = include
    pool |= o("pooling with", {}, {"stranger": 1}, {"pooling_mode_cls_token": None})
    place = o("pooling folder", "1_Pooling", "pooling", "2_Pooling", "")
    if o("pooling file", True, False, rate=o.rate / 4):
        dump((folder / place if place else home) / "config.json", pool) if place else None
    if place:
        chain.append(("Pooling", place))
        width *= max(1, len(modes)) if spelling != "both" else 1
    odd_after = o("module order", "usual", "normalize twice", "idx shuffled", "with kwargs", "dropout", rate=o.rate / 2)
    tail = o("after pooling", [], ["Normalize"], ["Dense"], ["Dense", "Normalize"], ["LayerNorm"], ["Normalize", "Dense"], ["Dense", "Dense"], ["LayerNorm", "Dense", "Normalize"], rate=0.5)
    for number, kind in enumerate(tail, len(chain)):
        here = f"{number}_{kind}"
        if kind == "Dense":
            out = o(f"dense {number} out", 6, 16, 24)
            dense(o, folder / here, width, out, "sentence_embedding", f"{number} ")
            width = out
        elif kind == "LayerNorm":
            (folder / here).mkdir()
            dump(folder / here / "config.json", {"dimension": width})
            g = torch.Generator().manual_seed(o.seed)
            save_file({"norm.weight": torch.rand(width, generator=g) + 0.5, "norm.bias": torch.randn(width, generator=g)}, folder / here / "model.safetensors")
        chain.append((kind, here))
    if odd_after == "dropout":
        dump(folder / "9_Dropout" / "config.json", {"dropout": 0.4})
        chain.append(("Dropout", "9_Dropout"))
    if odd_after == "normalize twice":
        chain += [("Normalize", "9_Normalize"), ("Normalize", "10_Normalize")]
    listed = [{"idx": i, "name": str(i), "path": p, "type": where(k)} for i, (k, p) in enumerate(chain)]
    if odd in ("Router", "SpladePooling", "MultiVectorMask"):
        listed.append({"idx": len(chain), "name": str(len(chain)), "path": f"{len(chain)}_{odd}", "type": {
            "Router": where("Router"), "SpladePooling": "sentence_transformers.sparse_encoder.modules.splade_pooling.SpladePooling",
            "MultiVectorMask": "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"}[odd]})
    if odd_after == "idx shuffled":
        for entry, n in zip(listed, reversed(range(len(listed)))):
            entry["idx"] = n
    if odd_after == "with kwargs":
        listed[0]["kwargs"] = ["task"]
    dump(folder / "modules.json", listed)
    # config_sentence_transformers.json
    prompts = o("prompts", {}, {"query": "query: ", "document": ""}, {"query": "the tide", "passage": "passage: ", "clean": "<new> "}, {"query": "search for the pond: ", "document": "a\n"}, {"query": None, "document": "document "}, rate=max(o.rate, 0.15))
    whole = {"__version__": {"sentence_transformers": "6.2.0", "transformers": "5.24.0", "pytorch": "2.15.0"}, "prompts": prompts}
    whole["default_prompt_name"] = o("default_prompt_name", None, "query", "document", "absent", rate=0.6 if prompts else o.rate / 4)
    whole |= o("config_sentence_transformers with", {}, {"similarity_fn_name": "dot"}, {"similarity_fn_name": "cosine"}, {"truncate_dim": 5}, {"truncate_dim": 64}, {"truncate_dim": None}, {"truncate_dim": 0}, {"model_type": "SentenceTransformer"},
               {"model_type": "SparseEncoder"}, {"model_type": "CrossEncoder"}, {"model_type": None}, {"truncate_dim": -3}, {"stranger": True})
    if o("config_sentence_transformers.json", True, False):
        dump(folder / "config_sentence_transformers.json", whole)


def dense(o, folder, inputs, outputs, key, name):
    """A Dense module."""
    bias = o(name + "dense bias", True, False)
    act = o(name + "dense activation", "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.ReLU", "torch.nn.modules.activation.GELU", "torch.nn.modules.activation.Sigmoid",
            "torch.nn.modules.activation.SiLU", "torch.nn.modules.activation.LeakyReLU", "torch.nn.modules.activation.ELU", "torch.nn.modules.activation.Softmax", "my.own.Activation", "absent", "torch.nn.Identity", rate=max(o.rate, 0.3))
    config = {"in_features": inputs, "out_features": outputs, "bias": bias, "activation_function": act}
    if act == "absent":
        del config["activation_function"]
    if key != "sentence_embedding":
        config["module_input_name"] = key
    residual = o(name + "dense residual", False, True)
    if residual:
        config["use_residual"] = True
    if o(name + "dense stranger", False, True):
        config["stranger"] = 3
    g = torch.Generator().manual_seed(o.seed + outputs)
    state = {"linear.weight": torch.randn(outputs, inputs, generator=g) / math.sqrt(inputs)}
    if bias:
        state["linear.bias"] = torch.randn(outputs, generator=g) * 0.3
    if residual and inputs != outputs:
        state["residual.weight"] = torch.randn(outputs, inputs, generator=g) / math.sqrt(inputs)
    dump(folder / "config.json", config)
    if o(name + "dense file", "model.safetensors", "pytorch_model.bin", rate=o.rate / 2) == "model.safetensors":
        save_file({k: v.to(torch.float16) for k, v in state.items()} if o(name + "dense dtype", 32, 16) == 16 else state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")


# Classifiers.

def labels(o, prefix=("no", "maybe", "yes", "often", "never")):
    count = o("labels", 3, 2, 1, 5)
    names = list(prefix[:count])
    kind = o("id2label", "names", "absent", "numbers", "twice", "unicode", "empty", "spaces", "LABEL_n", "int keys out of order", "quotes")
    named = {"names": names, "numbers": list(range(count)), "twice": [names[0]] * count, "unicode": [f"ß{n}🙂" for n in names], "empty": [""] + names[1:], "spaces": [f" {n} x" for n in names],
             "LABEL_n": [f"LABEL_{n}" for n in range(count)], "int keys out of order": names, "quotes": [f'"{n}"\n' for n in names], "absent": [f"LABEL_{n}" for n in range(count)]}[kind]
    return count, kind, named


def write_labels(folder, kind, named):
    """id2label as `kind` has it, in the written configuration."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    if "id2label" in config and config["id2label"] is not None:
        pairs = list(enumerate(named))
        config["id2label"] = {str(k): v for k, v in (reversed(pairs) if kind == "int keys out of order" else pairs)}
        config["label2id"] = {str(v): k for k, v in pairs}
        if kind == "absent":
            del config["id2label"], config["label2id"]
            config["num_labels"] = len(named)
    dump(path, config)


def classify(o, folder, small):
    count, kind, named = labels(o)
    problem = o("problem_type", None, "single_label_classification", "multi_label_classification", "regression", rate=max(o.rate, 0.3))
    build(o, folder, "ForSequenceClassification", small, {"num_labels": count, "problem_type": problem})
    write_labels(folder, kind, named)
    inputs = [{"text": t} for _, t in texts.several(o.rng("texts"), small)]

    resave(o, folder, lambda: pipeline("text-classification", folder))

    def reference():
        pipe = pipeline("text-classification", folder)
        return lambda value: classified(pipe, value["text"])
    return inputs, reference, [], lambda name: False


def classified(pipe, text):
    """The answer of transformers' pipeline to a text, or to a pair as `{"text": …, "text_pair": …}`."""
    got = pipe([text], truncation=True, top_k=None)[0]
    regression = pipe.model.config.problem_type == "regression" and pipe.model.config.num_labels == 1
    return {"value": got[0]["score"]} if regression else {"scores": [[g["label"], g["score"]] for g in got]}


def pair(o, folder, small):
    """A cross-encoder where sentence-transformers marked it or the task says so, else a classifier of pairs."""
    from sentence_transformers import CrossEncoder
    count = o("labels", 1, 2, 3, rate=o.rate / 2)
    family, config, tokens = build(o, folder, "ForSequenceClassification", small, {"num_labels": count}, pairs=True)
    path = folder / "config.json"
    written = json.loads(path.read_text())
    identity = "torch.nn.modules.linear.Identity"
    mark = o("cross-encoder mark", "new", "none", "none", "sigmoid", "old", "old null", "untrusted", "modules.json", "tanh", rate=max(o.rate, 0.5))
    task = o("asked task", "none", "text-ranking", "text-classification", rate=0.5 if mark == "none" else o.rate)
    cross = task == "text-ranking" or task == "none" and mark != "none"
    written |= {"none": {}, "new": {"sentence_transformers": {"activation_fn": identity, "version": "5.0.0"}}, "sigmoid": {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "5.0.0"}},
                "old": {"sbert_ce_default_activation_function": identity}, "old null": {"sbert_ce_default_activation_function": None}, "untrusted": {"sentence_transformers": {"activation_fn": "my.own.fn", "version": "5.0.0"}},
                "modules.json": {}, "tanh": {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh", "version": "5.0.0"}}}[mark]
    dump(path, written)
    if mark == "modules.json":
        dump(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}])
        dump(folder / "sentence_bert_config.json", {"transformer_task": "sequence-classification", "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}}, "module_output_name": "scores"}
             | o("cross-encoder length", {}, {"max_seq_length": 9}))
        dump(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder", "__version__": {"sentence_transformers": "6.2.0"}, "activation_fn": o("cross-encoder activation", identity, "torch.nn.modules.activation.Sigmoid"),
             "prompts": o("cross-encoder prompts", {}, {"query": "query: "}), "default_prompt_name": o("cross-encoder default prompt", None, "query", rate=o.rate / 2)})
    rng = o.rng("texts")
    inputs = [{"text": a, "text_pair": b} for (_, a), (_, b) in zip(texts.several(rng, small), texts.several(rng, small))]

    def load():
        return CrossEncoder(str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float32})
    resave(o, folder, load if mark != "none" else lambda: pipeline("text-classification", folder))

    def reference():
        if not cross:
            pipe = pipeline("text-classification", folder)
            return lambda value: classified(pipe, value)
        missing.clear()
        model = load().eval()
        names = [model.config.id2label[i] for i in range(model.num_labels)]
        padded(model.tokenizer, tokens)
        model.tokenizer.model_max_length = min(model.tokenizer.model_max_length, places(model.config))

        def answer(value):
            scores = model.predict([(value["text"], value["text_pair"])], batch_size=1, show_progress_bar=False)[0]
            return {"scores": [[n, float(s)] for n, s in zip(names, scores if model.num_labels > 1 else [scores])]}
        return answer
    return inputs, reference, [] if task == "none" else ["--task", task], lambda name: False


def spans(o, folder, small):
    scheme = o("tag scheme", ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"], ["O", "PER", "LOC"], ["B-PER", "I-PER", "O"], ["A", "B-", "I-X-Y"], ["O", "I-PER", "I-LOC", "S-LOC", "E-PER"], ["o", "O"], ["LABEL_0", "LABEL_1"], ["B-PER", "B-PER", "O"], ["O"], ["O", "NN", "VB", "B"])
    build(o, folder, "ForTokenClassification", small, {"num_labels": len(scheme)})
    write_labels(folder, "names", scheme)
    aggregation = o("aggregation", "simple", "none", "first", "average", "max", rate=0.6)
    inputs = [{"text": t} for _, t in texts.several(o.rng("texts"), small)]

    resave(o, folder, lambda: pipeline("token-classification", folder))

    def reference():
        pipe = pipeline("token-classification", folder)

        def answer(value):
            got = pipe(value["text"], aggregation_strategy=aggregation)
            return {"spans": [{"label": g.get("entity_group", g.get("entity")), "score": float(g["score"]), "start": g["start"], "end": g["end"]} for g in got]}
        return answer
    return inputs, reference, ["--aggregation", aggregation], lambda name: False
