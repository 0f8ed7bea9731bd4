"""Tokenizers of every kind that Tidemill reads, as their files."""
import functools
import io
import json
import random

from texts import WORDS

# family → (special tokens: begin, end, pad, unknown, mask), in the order of their ids, kind, class
FAMILIES = {
    "bert": (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "wordpiece", "BertTokenizer"),
    "distilbert": (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "wordpiece", "DistilBertTokenizer"),
    "mpnet": (["<s>", "<pad>", "</s>", "[UNK]", "<mask>"], "wordpiece", "MPNetTokenizer"),
    "roberta": (["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "bpe", "RobertaTokenizer"),
    "xlm-roberta": (["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "unigram", "XLMRobertaTokenizer"),
    "camembert": (["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "unigram", "CamembertTokenizer"),
    "modernbert": (["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], "bpe", "PreTrainedTokenizerFast"),
}
FAMILIES["electra"] = FAMILIES["albert"] = FAMILIES["bert"]
ASCII = "abcdefghijklmnopqrstuvwxyz0123456789"


@functools.cache
def bpe():
    """Byte-level merges over the words."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(vocab_size=330, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    t.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    model = json.loads(t.to_str())["model"]
    return model["vocab"], model["merges"]


def field(data, number):
    """A field of a protobuf message: all its length-delimited values."""
    def varint(at):
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if data[at - 1] < 128:
                return value, at
    at, found = 0, []
    while at < len(data):
        key, at = varint(at)
        if key & 7 == 0:
            _, at = varint(at)
        elif key & 7 == 2:
            size, at = varint(at)
            if key >> 3 == number:
                found.append(data[at:at + size])
            at += size
        else:
            at += {1: 8, 5: 4}[key & 7]
    return found


@functools.cache
def charsmap(rule):
    """SentencePiece's normalisation in its compiled form, in base64."""
    import base64
    import pathlib
    import tempfile

    import sentencepiece
    out = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder:
        how = dict(normalization_rule_name=rule)
        if rule == "small":
            table = pathlib.Path(folder) / "rules.tsv"
            pairs = {"ﬁ": "fi", "½": "1/2", "①": "1", "Ⅷ": "VIII", "\u3000": " ", "\u00a0": " ", "\t": " ", "\n": " ", "\u200b": "", "\u00ad": "", "e\u0301": "é"}
            table.write_text("".join(" ".join(f"{ord(c):X}" for c in a) + "\t" + " ".join(f"{ord(c):X}" for c in b) + "\n" for a, b in pairs.items()))
            how = dict(normalization_rule_tsv=str(table))
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(WORDS * 3), model_writer=out, vocab_size=60, model_type="unigram", hard_vocab_limit=False, minloglevel=2, **how)
    normalizer = field(out.getvalue(), 3)[0]
    return base64.b64encode(field(normalizer, 2)[0]).decode()


def vocabulary(kind, specials, small):
    """Tokens in the order of their ids, and what else the model needs."""
    words = WORDS[:40] if small else WORDS
    if kind == "wordpiece":
        pieces = [*specials, *words, *ASCII, *("##" + c for c in ASCII), *".,!?-'()/%$", *"TBMH", *"éüï漢字中ßא", "##é", "##漢", "##🙂", "🙂", "##ing", "##s", "newtok",
                  "strasse", "cafe", "naive", "uber", "istanbul", "the1"]
        return list(dict.fromkeys(pieces)), None
    if kind == "wordlevel":
        return list(dict.fromkeys([*specials, *words, *(w.lower() for w in words), *".,!?", "漢字"])), None
    if kind == "bpe":
        vocab, merges = bpe()
        return [*specials, *sorted(vocab, key=vocab.get)], merges
    rng = random.Random("unigram")
    pieces = [*specials, "▁", *("▁" + w for w in words), *words, *ASCII, *"TBMHéüï漢字中,.!?-'🙂", "▁th", "ing", "de", "▁newtok", "▁VI", "1/2"]
    pieces = list(dict.fromkeys(pieces))
    return pieces, [0.0 if p in specials else round(-2 - rng.random() * 6 + len(p) * 0.3, 3) for p in pieces]


class Tokens:
    """`files`: name → bytes or JSON. `pad`: id of the padding token. `size`: ids."""

    def __init__(self, o, family, small, pairs=False):
        specials, own, own_class = FAMILIES[family]
        kind = o("tok.kind", own, *(k for k in ("wordpiece", "bpe", "unigram", "wordlevel") if k != own), rate=o.rate / 3)
        pieces, extra = vocabulary(kind, specials, small)
        ids = {p: i for i, p in enumerate(pieces)}
        begin, end, pad, unknown, mask = [next(s for s in specials if name in s.lower()) for name in
                                          (("cls", "sep", "pad", "unk", "mask") if "[CLS]" in specials else ("<s>", "</s>", "pad", "unk", "mask"))]
        self.begin, self.end, self.pad, self.unknown = begin, end, ids[pad], unknown
        added = [dict(id=ids[s], content=s, single_word=False, lstrip=s == mask and own_class in ("RobertaTokenizer", "MPNetTokenizer"),
                      rstrip=False, normalized=False, special=True) for s in specials]
        size = len(pieces)
        file = {"version": "1.0",
                "truncation": o("tokenizer.json truncation", None, {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0},
                                {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0},
                                {"direction": "Right", "max_length": 128, "strategy": "OnlyFirst", "stride": 2}),
                "padding": o("tokenizer.json padding", None, {"strategy": {"Fixed": 16}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": ids[pad], "pad_type_id": 0, "pad_token": pad},
                             {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": 8, "pad_id": ids[pad], "pad_type_id": 0, "pad_token": pad}),
                "added_tokens": added}
        # Normalizer and pre-tokenizer.
        lower = own == "wordpiece"
        bert = lambda **k: {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": lower} | k
        normal = {"wordpiece": bert(), "bpe": None, "unigram": {"type": "Precompiled", "precompiled_charsmap": charsmap("small")}, "wordlevel": {"type": "Lowercase"}}[kind]
        chosen = o("tokenizer.json normalizer", "own", "none", "cased", "uncased", "keep accents", "strip accents", "no chinese", "dirty", "nfkc lower", "nfd strip", "replace", "nmt_nfkc", "prepend", "nfc")
        file["normalizer"] = {
            "own": normal, "none": None, "cased": bert(lowercase=False), "uncased": bert(lowercase=True), "keep accents": bert(strip_accents=False, lowercase=True),
            "strip accents": bert(strip_accents=True, lowercase=False), "no chinese": bert(handle_chinese_chars=False), "dirty": bert(clean_text=False),
            "nfkc lower": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]},
            "nfd strip": {"type": "Sequence", "normalizers": [{"type": "NFD"}, {"type": "StripAccents"}, {"type": "Strip", "strip_left": True, "strip_right": True}]},
            "replace": {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}, "nfc": {"type": "NFC"},
            "nmt_nfkc": chosen == "nmt_nfkc" and {"type": "Precompiled", "precompiled_charsmap": charsmap("small" if small else "nmt_nfkc")},
            "prepend": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "a "}, {"type": "Lowercase"}]}}[chosen]
        prefix = o("tokenizer.json add_prefix_space", kind == "unigram", kind != "unigram")
        byte_level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": o("tokenizer.json trim_offsets", True, False), "use_regex": o("tokenizer.json use_regex", True, False)}
        metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always" if prefix else o("tokenizer.json prepend", "never", "first"), "split": True}
        before = {"wordpiece": {"type": "BertPreTokenizer"}, "bpe": byte_level, "wordlevel": {"type": "Whitespace"},
                  "unigram": o("tokenizer.json metaspace", {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]}, metaspace)}
        file["pre_tokenizer"] = before[kind] if kind in ("bpe", "unigram") else {"own": before[kind], "whitespace": {"type": "WhitespaceSplit"}, "digits": {"type": "Sequence", "pretokenizers": [before[kind], {"type": "Digits", "individual_digits": True}]},
                                                                                   "punctuation": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}]}}[o("tokenizer.json pre_tokenizer", "own", "whitespace", "digits", "punctuation")]
        # What is put around a text.
        style = "roberta" if own_class in ("RobertaTokenizer", "MPNetTokenizer") else "template"
        post = o("tokenizer.json post_processor", style, *(p for p in ("roberta", "template") if p != style), "bert", "none", "begin", "end", "two ends", "sequence", "other types")
        special = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (begin, end)}
        part = lambda t, k=0: {"Sequence" if t in "AB" else "SpecialToken": {"id": t, "type_id": k}}
        second = 0 if "[CLS]" not in specials else 1
        middle = [end] if second else [end, end]
        template = lambda single, pair: {"type": "TemplateProcessing", "single": [part(*x) for x in single], "pair": [part(*x) for x in pair],
                                         "special_tokens": {t: special[t] for t in sorted({x[0] for x in single + pair} - {"A", "B"})}}
        pair = [(begin,), ("A",), *((t,) for t in middle), ("B", second), (end, second)]
        usual = template([(begin,), ("A",), (end,)], pair)
        file["post_processor"] = {
            "template": usual, "none": None,
            "roberta": {"type": "RobertaProcessing", "sep": [end, ids[end]], "cls": [begin, ids[begin]], "trim_offsets": byte_level["trim_offsets"], "add_prefix_space": prefix},
            "bert": {"type": "BertProcessing", "sep": [end, ids[end]], "cls": [begin, ids[begin]]},
            "begin": template([(begin,), ("A",)], [(begin,), ("A",), ("B", 1)]), "end": template([("A",), (end,)], [("A",), (end,), ("B",), (end,)]),
            "two ends": template([(begin,), (begin,), ("A",), (end,), (end,)], pair),
            "other types": template([(begin, 1), ("A", 1), (end, 1)], pair),
            "sequence": {"type": "Sequence", "processors": [{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, usual]}}[post]
        file["decoder"] = None
        file["model"] = {
            "wordpiece": lambda: {"type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##", "max_input_chars_per_word": o("tokenizer.json max_input_chars", 100, 5), "vocab": ids},
            "wordlevel": lambda: {"type": "WordLevel", "unk_token": unknown, "vocab": ids},
            "bpe": lambda: {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                            "ignore_merges": o("tokenizer.json ignore_merges", False, True), "vocab": ids, "merges": extra},
            "unigram": lambda: {"type": "Unigram", "unk_id": ids[unknown], "vocab": [[p, s] for p, s in zip(pieces, extra or [])], "byte_fallback": o("tokenizer.json byte_fallback", False, True)}}[kind]()
        if not o("tokenizer.json model.type", True, False, rate=o.rate / 4):
            del file["model"]["type"]
        # tokenizer_config.json: everything may be absent.
        config, absent = {}, "absent"

        def key(name, *values, default=absent, rate=None):
            value = o(f"tokenizer_config {name}", default, *(v for v in values if v != default), rate=rate)
            if value != absent:
                config[name] = value

        fast = own_class + "Fast" if own_class != "PreTrainedTokenizerFast" else "TokenizersBackend"
        generic = ["PreTrainedTokenizerFast", "TokenizersBackend"]
        others = {"wordpiece": ["BertTokenizer", "BertTokenizerFast", "MPNetTokenizerFast", "ElectraTokenizer"], "bpe": ["RobertaTokenizer", "RobertaTokenizerFast"], "unigram": ["XLMRobertaTokenizer", "XLMRobertaTokenizerFast", "CamembertTokenizerFast"]}
        key("tokenizer_class", fast, *generic, *generic, absent, *others.get(kind, []),
            default=own_class if kind == own else generic[0], rate=max(o.rate, 0.2))
        key("do_lower_case", True, False)
        key("strip_accents", True, False, None)
        key("tokenize_chinese_chars", True, False)
        key("add_prefix_space", True, False)
        key("trim_offsets", True, False)
        key("model_max_length", 8, 12, 10 ** 30, 512, 16.0, 2, default=absent)
        key("max_len", 8)
        key("max_length", 7)
        key("truncation_side", "left", "right")
        key("padding_side", "left", "right")
        key("stride", 2)
        key("clean_up_tokenization_spaces", True, False)
        key("split_special_tokens", True, False)
        key("do_basic_tokenize", False, True)
        key("never_split", ["the"])
        key("add_bos_token", True, False)
        key("add_eos_token", True, False)
        key("model_input_names", ["input_ids", "attention_mask"], ["input_ids", "token_type_ids", "attention_mask"])
        key("keep_accents", True)
        key("sp_model_kwargs", {})
        key("name_or_path", "/somewhere/else")
        key("use_fast", False)
        key("legacy", True)
        names = dict(zip(("cls_token", "sep_token", "pad_token", "unk_token", "mask_token"), (begin, end, pad, unknown, mask)))
        if "[CLS]" not in specials:
            names |= {"bos_token": begin, "eos_token": end}
        other = o("special tokens", "by name", "absent", "objects", "end is another", "begin is another", "unknown is another", "unknown is new", "bos and eos")
        if other == "objects":
            names = {k: {"__type": "AddedToken", "content": v, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False} for k, v in names.items()}
        elif other == "end is another":
            names |= {"sep_token": mask} | ({"eos_token": mask} if "eos_token" in names else {})
        elif other == "begin is another":
            names |= {"cls_token": mask} | ({"bos_token": mask} if "bos_token" in names else {})
        elif other == "unknown is another":
            names |= {"unk_token": mask}
        elif other == "unknown is new":
            names |= {"unk_token": "<none>"}
        elif other == "bos and eos":
            names |= {"bos_token": begin, "eos_token": end}
        place = o("special tokens file", "tokenizer_config.json", "special_tokens_map.json", "both")
        self.files = {"tokenizer.json": file}
        if other != "absent":
            if place != "special_tokens_map.json":
                config |= names
            if place != "tokenizer_config.json":
                self.files["special_tokens_map.json"] = {k: {x: y for x, y in v.items() if x != "__type"} if isinstance(v, dict) else v for k, v in names.items()}
        # Tokens that were added later.
        flags = dict(lstrip=o("added lstrip", False, True), rstrip=o("added rstrip", False, True), single_word=o("added single_word", False, True),
                     normalized=o("added normalized", False, True), special=o("added special", True, False))
        where = o("added tokens", "none", "tokenizer.json", "added_tokens_decoder", "both", "added_tokens.json", "additional_special_tokens", "extra_special_tokens", "special_tokens_map", "decoder overrides", "a word of the vocabulary")
        new = o("added content", "<new>", "newtok", "[EXTRA]", " spaced ", "漢", "Tide")
        decoder = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in added}
        if where in ("tokenizer.json", "both"):
            added.append(dict(id=ids.get(new, size), content=new, **flags))
        if where in ("added_tokens_decoder", "both"):
            config["added_tokens_decoder"] = decoder | {str(ids.get(new, size)): dict(content=new, **flags)}
        if where == "decoder overrides":
            config["added_tokens_decoder"] = decoder | {str(ids[mask]): dict(content=mask, **(flags | dict(special=True)))}
        if where == "added_tokens.json":
            self.files["added_tokens.json"] = {new: ids.get(new, size)}
        if where in ("additional_special_tokens", "extra_special_tokens"):
            config[where] = [new]
        if where == "special_tokens_map":
            self.files.setdefault("special_tokens_map.json", {})["additional_special_tokens"] = [new]
        if where == "a word of the vocabulary":
            added.append(dict(id=ids[pieces[7]], content=pieces[7], **flags))
        self.size = size + 3
        self.places = None
        # Which files there are.
        which = o("tokenizer files", "tokenizer.json", "no tokenizer_config.json", "vocabulary too", "vocabulary only", rate=o.rate / 2)
        if which != "no tokenizer_config.json":
            self.files["tokenizer_config.json"] = config
        if which.startswith("vocabulary"):
            if kind in ("wordpiece", "wordlevel"):
                self.files["vocab.txt"] = ("\n".join(pieces) + "\n").encode()
            elif kind == "bpe":
                self.files["vocab.json"] = ids
                self.files["merges.txt"] = ("#version: 0.2\n" + "\n".join(m if isinstance(m, str) else " ".join(m) for m in extra) + "\n").encode()
            if which == "vocabulary only" and kind != "unigram":
                del self.files["tokenizer.json"]
