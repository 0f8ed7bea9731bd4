"""Texts that tokenizers, cuts and JSON may stumble over."""

WORDS = ("the a tide pond gate wheel mill word fills shut drive with whole at once and is of what readers see exactly property in "
         "one line take took three weeks box was damaged support refunded me train goes to Hamburg today from Berlin Angela Merkel "
         "met Emmanuel Paris New York café naïve über The Tide Wheel query passage search document clean").split()
SPECIAL = ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "<s>", "</s>", "<pad>", "<mask>", "<unk>", "<new>", "newtok", "[EXTRA]", "##ing"]
PARTS = {
    "emoji": ["🙂", "👩‍👩‍👧‍👦", "🇩🇪", "❤️", "🙂🙂🙂", "a🙂b"],
    "cjk": ["漢字", "漢字かな交じり文", "中", "日本語テキスト", "한국어", "ﾊﾝｶｸ", "ไทย"],
    "accents": ["café", "naïve", "über", "e\u0301", "A\u030a", "ǆ", "Straße", "ﬁne", "İstanbul", "ΣΟΦΟΣ", "ŉ", "ﷺ", "Ⅷ", "½", "①"],
    "control": ["\x00", "\x07bell", "a\x1bb", "\x7f", "\x85", "tab\there", "new\nline", "cr\r\n", "\ufffd", "\ufeff", "\u2028", "\x0b\x0c"],
    "zero width": ["\u200b", "a\u200bb", "zero\u200dwidth", "\u2060", "\u00ad", "soft\u00adhyphen", "\u200e", "\u3164", "\ue000"],
    "rtl": ["שלום", "مرحبا بالعالم", "\u202eevil\u202c", "עִבְרִית"],
    "spaces": ["\u00a0", "\u3000", "\u2009", "  ", "   \t  ", " lead", "trail "],
    "punctuation": ["!?", "...", "--", "don't", "(a)", "5.975,74", "$1", "a/b", "x=y;", "“quoted”", "—", "`` ''", "100%", "#tag", "@me", "a_b"],
    "mixed case": ["THE", "Tide", "wHeEl", "ÜBER", "CAFÉ", "McDonald"],
    "hex": ["deadbeefcafe", "0x7f3a9b", "550e8400-e29b-41d4-a716-446655440000", "aGVsbG8gd29ybGQ="],
    "specials": SPECIAL + ["[CLS]the", "x[SEP]", " <mask> ", "</s></s>", "new newtok news", "[extra]"],
}


def one(rng):
    """A text, and what it is."""
    kind = rng.choice(["plain", "plain", "empty", "space", "long", "long", "long word", "mixture", "mixture", *PARTS])
    words = lambda n: " ".join(rng.choice(WORDS) for _ in range(n))
    if kind == "plain":
        text = words(rng.randint(1, 9))
    elif kind == "empty":
        text = ""
    elif kind == "space":
        text = rng.choice([" ", "\n", "\t \n", "\u00a0", "\u200b", "   "])
    elif kind == "long":
        parts = [rng.choice(WORDS) if rng.random() < 0.9 else rng.choice(PARTS[rng.choice(list(PARTS))]) for _ in range(rng.choice([20, 60, 200, 900]))]
        text = " ".join(parts)
    elif kind == "long word":
        alphabet = rng.choice(["a", "abc", "0123456789abcdef", "漢", "🙂", "é", "tide"])
        text = rng.choice(["", "the ", "  "]) + "".join(rng.choice(alphabet) for _ in range(rng.choice([20, 101, 150, 700, 5000]))) + rng.choice(["", " tide", " the pond gate"])
    elif kind == "mixture":
        pool = [p for parts in PARTS.values() for p in parts] + WORDS
        text = "".join(rng.choice(pool) + rng.choice([" ", " ", "", "\n"]) for _ in range(rng.randint(2, 14)))
    else:
        text = "".join(rng.choice([rng.choice(PARTS[kind]), rng.choice(WORDS)]) + rng.choice([" ", " ", ""]) for _ in range(rng.randint(1, 7)))
    return kind, text


def several(rng, small):
    """The texts of a folder."""
    made = [("plain", "The tide fills the pond"), *(one(rng) for _ in range(4 if small else 7))]
    return [(kind, text[:700]) for kind, text in made] if small else made
