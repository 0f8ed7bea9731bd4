#!/usr/bin/env python3
"""Seeds for tests/it/fuzz.rs, one small file each: what real producers write, and what has gone wrong somewhere.

    make_corpus.py [FOLDER]

Needs: fastavro, lz4, zstandard.
"""
import gzip
import io
import json
import pathlib
import struct
import sys

import fastavro
import lz4.frame
import zstandard

root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent / "corpus")


def put(folder, name, data):
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


row = '{"a":1.5,"b":"x \\u00e9 y","c":null,"d":[1,{"e":-0.0}],"f":true}'
seeds = {
    "row": row,
    "pretty": json.dumps(json.loads(row), indent=2),
    "numbers": '{"a":-0,"b":9223372036854775807,"c":18446744073709551616,"d":1e-320,"e":1E+2,"f":0.1e0}',
    "huge": '{"z":1e400,"a":123456789012345678901234567890.5}',
    "surrogates": '{"a":"\\ud83d\\ude00 \\ud83d \\ude00\\ud83d","b":"\\u0000\\/\\b"}',
    "twice": '{"a":1,"a":"2","b":{"a":3},"b":4}',
    "names": '{"\\u0061":1,"b\\\\":2,"":3,"a b":4,"\u00e9":5}',
    "deep": '{"x":' + "[" * 200 + "]" * 200 + ',"a":1}',
    "space": ' \t\r\n{ "a" :\n1 , "b" : "" } \n',
    "empty": "{}",
    "list": "[1,2,3]",
    "nan": '{"a":NaN,"b":Infinity}',
    "mark": "\ufeff{}",
}
for name, text in seeds.items():
    put("json", name, text)

schema = {"type": "struct", "fields": [{"field": "a", "type": "double"}]}
change = {"before": None, "after": {"a": 1, "b": "x"}, "op": "u", "ts_ms": 1719108850619, "source": {"table": "t"}}
put("envelope", "connect", json.dumps({"schema": schema, "payload": {"a": 1}}))
put("envelope", "bare", json.dumps({"a": 1, "b": "x"}))
put("envelope", "update", json.dumps(change))
put("envelope", "wrapped", json.dumps({"schema": schema, "payload": change}))
put("envelope", "deleted", json.dumps({**change, "after": None, "op": "d"}))
put("envelope", "heartbeat", json.dumps({"ts_ms": 1}))
put("envelope", "framed", b"\x00\x00\x00\x00\x07" + json.dumps({"a": 1}).encode())

avro = {
    "type": "record", "name": "Row", "namespace": "shop", "fields": [
        {"name": "a", "type": ["null", "double"]},
        {"name": "b", "type": "string"},
        {"name": "n", "type": {"type": "record", "name": "Inner", "fields": [
            {"name": "i", "type": "int"}, {"name": "again", "type": ["null", "Inner"]}]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "by", "type": {"type": "map", "values": "long"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["X", "Y"]}},
        {"name": "id", "type": {"type": "fixed", "name": "Id", "size": 4}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "ok", "type": "boolean"},
        {"name": "f", "type": "float"},
    ],
}
put("avro", "schema.avsc", json.dumps(avro, indent=1))
import datetime
import decimal
base = {"a": 1.5, "b": "x é", "n": {"i": -3, "again": {"i": 7, "again": None}}, "tags": ["p", "q"], "by": {"k": 5},
        "price": decimal.Decimal("12.34"), "kind": "Y", "id": b"\x00\x01\x02\x03",
        "at": datetime.datetime(2024, 6, 23, tzinfo=datetime.timezone.utc), "ok": True, "f": 0.5}
parsed = fastavro.parse_schema(avro)
for name, change in {"row": {}, "nulls": {"a": None, "tags": [], "by": {}}, "many": {"tags": ["t" * 9] * 30, "by": {str(n): n for n in range(30)}}}.items():
    out = io.BytesIO()
    fastavro.schemaless_writer(out, parsed, {**base, **change})
    put("avro", name, out.getvalue())
    put("frame", name, b"\x00" + struct.pack(">I", 3) + out.getvalue())
put("frame", "short", b"\x00\x00\x00")
put("frame", "guid", b"\x01" + bytes(range(16)) + b"\x02")

for name, packed in {"gzip": gzip.compress(row.encode() * 40, mtime=0), "zstd": zstandard.compress(row.encode() * 40), "lz4": lz4.frame.compress(row.encode() * 40)}.items():
    put("encoded", name, packed)
put("encoded", "bomb", gzip.compress(bytes(1 << 20), mtime=0))
