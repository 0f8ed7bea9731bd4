"""Makes `windows.json`: texts in windows, and the embeddings that sentence-transformers gives to these pieces.

    python3 -m venv /tmp/py && /tmp/py/bin/pip install torch transformers==5.24.0 sentence-transformers==6.2.0
    /tmp/py/bin/python tests/it/data/make_windows.py

Where windows begin and end is worked out here from the rule alone, on the tokens of the whole rest of a text.
"""

import json
import pathlib
import shutil
import tempfile

import numpy
from sentence_transformers import SentenceTransformer

HERE = pathlib.Path(__file__).resolve().parent
TEXTS = [
    "The Box was late",
    "The parcel from Zürich came late, and the Box was broken! Who wrote the order? The quick brown fox came late and the "
    "parcel was broken, and the Box from Zürich was late.",
    "  naïve CAFÉ 東京 co-op\tend   " * 6,
    "Zürich" * 40,
    "",
    "e\u0301 the quick brown fox e\u0301e\u0301 " * 8 + "   ",
]
MODULES = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
CASES = [  # base, longest, overlap, prompt, normalised
    ("bert", 16, 0, "", True),
    ("bert", 16, 4, "query: ", True),
    ("bert", 24, 11, "", False),
    ("roberta", 16, 0, "", True),
    ("roberta", 20, 5, "", False),
    ("xlmr", 12, 0, "passage: ", True),
    ("xlmr", 30, 3, "", True),
]


def files(longest, prompt, unit):
    modules = MODULES if unit else MODULES[:2]
    named = {"prompts": {"it": prompt}, "default_prompt_name": "it"} if prompt else {}
    return {
        "modules.json": [
            {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for i, (kind, path) in enumerate(modules)
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": longest, "do_lower_case": False},
        "config_sentence_transformers.json": named,
    }


def windows(tokenizer, text, prompt, longest, overlap):
    room = longest - tokenizer.num_special_tokens_to_add(False)
    found, start = [], 0
    while True:
        rest = text[start:]
        offsets = tokenizer.encode(prompt + rest, add_special_tokens=False).offsets
        places = [tuple(max(0, at - len(prompt)) for at in pair) for pair in offsets]
        if len(places) <= room:
            if rest.strip() or not found:
                found.append((start, len(text)))
            return found
        first = sum(end == 0 for _, end in places)

        def clean(at):
            return places[at - 1][1] <= places[at][0]

        def space(at):
            begin = places[at][0]
            return clean(at) and (rest[:begin][-1:].isspace() or rest[begin:][:1].isspace())

        least = max(first + (room - first) * 3 // 4, first + 1)
        wanted = space
        cuts = [at for at in range(room, least - 1, -1) if space(at)]
        if not cuts:
            wanted = clean
            cuts = [at for at in range(room, first, -1) if clean(at)]
        step, cut = 1, cuts[0]
        while True:
            piece = rest[: places[cut][0]].rstrip()
            if len(tokenizer.encode(prompt + piece, add_special_tokens=False).ids) <= room:
                break
            cut = next(at for at in range(cut - step, first, -1) if clean(at))
            step *= 2
        if piece.strip():
            found.append((start, start + len(piece)))
        back = [at for at in range(max(cut - overlap, first + 1), cut + 1) if wanted(at)]
        left = rest[places[(back or [cut])[0]][0]:].lstrip()
        if not left:
            return found
        start = len(text) - len(left)


def rounded(vector):
    return [round(float(value), 7) for value in vector]


def main():
    out = []
    for base, longest, overlap, prompt, unit in CASES:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            shutil.copytree(HERE / "folders" / base, folder, dirs_exist_ok=True)
            written = files(longest, prompt, unit)
            for name, content in written.items():
                (folder / name).parent.mkdir(exist_ok=True)
                (folder / name).write_text(json.dumps(content))
            model = SentenceTransformer(str(folder), device="cpu")
            tokenizer = model.tokenizer.backend_tokenizer
            tokenizer.no_truncation()
            found = [windows(tokenizer, text, prompt, longest, overlap) for text in TEXTS]
        answers = []
        for text, places in zip(TEXTS, found):
            pieces = [text[start:end] for start, end in places]
            vectors = numpy.stack([model.encode([piece], batch_size=1)[0] for piece in pieces])
            specials = tokenizer.num_special_tokens_to_add(False)
            tokens = [len(tokenizer.encode(prompt + piece, add_special_tokens=False).ids) + specials for piece in pieces]
            mean = numpy.average(vectors.astype(float), axis=0, weights=tokens)
            if unit and len(pieces) > 1:
                mean /= numpy.linalg.norm(mean)
            answers.append({
                "text": text,
                "chunks": [{"start": s, "end": e, "embedding": rounded(v)} for (s, e), v in zip(places, vectors)],
                "mean": rounded(mean),
            })
        out.append({"base": base, "overlap": overlap, "files": written, "answers": answers})
    lines = ",\n".join(json.dumps(case) for case in out)
    (HERE / "windows.json").write_text(f"[\n{lines}\n]\n")


main()
