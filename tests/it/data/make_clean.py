#!/usr/bin/env python3
"""What pandas makes of numbers and dates in texts.

    pip install pandas==3.1.1
    python tests/it/data/make_clean.py

Writes clean.json: {"numbers": [{decimal, group, text, value}], "dates": [{format, zone, text, seconds}]}; null where pandas
finds neither number nor date. Where pandas takes more than is meant (it leaves out every sign of a group, wherever it stands), nothing
is asked.
"""
import csv, io, json, pathlib, random

import pandas as pd

HERE = pathlib.Path(__file__).resolve().parent
random.seed(13)


def number(text, decimal, group):
    out = io.StringIO()
    csv.writer(out, delimiter=";", quoting=csv.QUOTE_ALL).writerow([text])
    read = pd.read_csv(
        io.StringIO(out.getvalue()), sep=";", header=None, decimal=decimal, thousands=group or None,
        keep_default_na=False)
    value = read.iloc[0, 0]
    return None if isinstance(value, str) else float(value)


def written(value, decimal, group, digits):
    text = f"{value:,.{digits}f}" if group else f"{value:.{digits}f}"
    return text.translate({ord(","): group, ord("."): decimal})


numbers = []
for decimal, group in [(".", ""), (",", ""), (".", ","), (",", "."), (",", " "), (".", "'"), (".", "_")]:
    texts = [written(random.uniform(-1, 1) * 10 ** random.randrange(12), decimal, group, random.randrange(6)) for _ in range(24)]
    texts += [f"{random.uniform(-9, 9):.4f}e{random.randrange(-30, 30)}".replace(".", decimal) for _ in range(6)]
    texts += ["abc", "--1", "1-", "", "5 kg", "1e", f"1{decimal}2{decimal}3", f"{decimal}5", "+7", "007", "١٢", "−5", "0x10"]
    for text in texts:
        if text != "−5":  # a minus that is a character of its own is one to us
            numbers.append({"decimal": decimal, "group": group, "text": text, "value": number(text, decimal, group)})

dates = []
for format, zone in [
    ("%Y-%m-%d", None), ("%d.%m.%Y", None), ("%m/%d/%Y", None), ("%d/%m/%y", None), ("%Y%m%d", None), ("%d %b %Y", None),
    ("%B %d, %Y", None), ("%Y-%m-%d %H:%M:%S", None), ("%d.%m.%Y %H:%M", "Europe/Berlin"), ("%m/%d/%Y %I:%M %p", "America/New_York"),
    ("%Y-%m-%dT%H:%M:%S%z", None), ("%Y-%j", None), ("%d.%m.%Y %H:%M", "Asia/Kolkata"),
]:
    texts = []
    for _ in range(10):
        # Not the hours in which clocks are changed.
        moment = pd.Timestamp(random.randrange(0, 2_000_000_000) // 86_400 * 86_400 + random.randrange(43_200, 80_000), unit="s")
        texts.append((moment.tz_localize("Asia/Tokyo") if "%z" in format else moment).strftime(format))
    texts += ["", "tomorrow", "2024-02-30", "30.02.2024", "02/30/2024", "31.12.2023 25:00"]
    for text in texts:
        read = pd.to_datetime(text, format=format, errors="coerce")
        seconds = None
        if not pd.isna(read):
            read = read if read.tzinfo else read.tz_localize(zone or "UTC")
            seconds = int(read.timestamp())
        dates.append({"format": format, "zone": zone, "text": text, "seconds": seconds})

text = json.dumps({"numbers": numbers, "dates": dates}, ensure_ascii=False, indent=0)
(HERE / "clean.json").write_text(text.replace("\n", "").replace('{"decimal', '\n{"decimal').replace('{"format', '\n{"format') + "\n")
