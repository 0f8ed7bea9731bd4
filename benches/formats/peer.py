#!/usr/bin/env python3
"""fastavro for `cargo bench --bench formats`: decodes all records of FILE into columns each time that a line comes.

    peer.py FILE SCHEMA
"""
import io
import json
import pathlib
import struct
import sys
import time

import fastavro

schema = fastavro.parse_schema(json.loads(pathlib.Path(sys.argv[2]).read_text()))
names = [field["name"] for field in schema["fields"]]
data, records = pathlib.Path(sys.argv[1]).read_bytes(), []
at = 0
while at < len(data):
    (length,) = struct.unpack_from("<I", data, at)
    records.append(data[at + 4 : at + 4 + length])
    at += 4 + length
print("ready", flush=True)
for _ in sys.stdin:
    began = time.perf_counter_ns()
    columns = [[] for _ in names]
    for record in records:
        row = fastavro.schemaless_reader(io.BytesIO(record[5:]), schema)
        for column, name in zip(columns, names):
            column.append(row[name])
    print((time.perf_counter_ns() - began) / len(records), len(columns[0]), flush=True)
