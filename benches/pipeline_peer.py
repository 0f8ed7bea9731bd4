#!/usr/bin/env python3
"""The Python side of `cargo bench --bench pipeline -- peer`: Kafka, ONNX Runtime, Kafka, exactly once, as a team would write it.

    pipeline_peer.py SERVERS MODEL_DIR ONNX_FILE RECORDS

Reads topic `in` from its start in a group of its own, embeds `text` in batches of 256 (sorted by length, 32 rows a call, as is usual),
produces to `peer-out` and commits the offsets in the same transaction. Prints one JSON line: records a second from the first record to
the last commit, and the largest resident memory in MiB. Needs: confluent-kafka, numpy, onnxruntime, orjson, tokenizers.
"""
import json
import resource
import sys
import time
import uuid

import numpy as np
import onnxruntime
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from tokenizers import Tokenizer

servers, model, onnx, records = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
BATCH, CALL, WAIT = 256, 32, 0.05

tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
tokenizer.no_padding()
tokenizer.enable_truncation(256)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
names = {value.name for value in session.get_inputs()}


def embed(texts):
    rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    vectors = [None] * len(rows)
    for at in range(0, len(order), CALL):
        part = order[at:at + CALL]
        shape = len(part), len(rows[part[0]])
        ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for place, row in enumerate(part):
            ids[place, :len(rows[row])], mask[place, :len(rows[row])] = rows[row], 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        states = session.run(None, {name: feed[name] for name in names})[0]
        weight = mask[:, :, None].astype(np.float32)
        mean = (states * weight).sum(1) / weight.sum(1)
        mean /= np.linalg.norm(mean, axis=1, keepdims=True)
        for row, vector in zip(part, mean):
            vectors[row] = vector
    return vectors


embed(["warm up"] * CALL)
group = f"peer-{uuid.uuid4()}"
consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False,
                     "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
producer = Producer({"bootstrap.servers": servers, "transactional.id": group, "linger.ms": 0, "compression.type": "zstd"})
producer.init_transactions(30)
consumer.subscribe(["in"])
done, began = 0, None
while done < records:
    batch, close = [], None
    while len(batch) < BATCH and (close is None or time.monotonic() < close):
        wait = 1.0 if close is None else max(close - time.monotonic(), 0)
        batch += [message for message in consumer.consume(BATCH - len(batch), wait) if not message.error()]
        if batch and close is None:
            close = time.monotonic() + WAIT
            began = began or time.perf_counter()
    waiting = len(batch)

    def delivered(error, _message):
        global waiting
        if error:
            raise SystemExit(str(error))
        waiting -= 1

    vectors = embed([orjson.loads(message.value())["text"] for message in batch])
    producer.begin_transaction()
    ends = {}
    for message, vector in zip(batch, vectors):
        value = orjson.dumps({"embedding": vector}, option=orjson.OPT_SERIALIZE_NUMPY)
        producer.produce("peer-out", value, message.key(), message.partition(), on_delivery=delivered)
        ends[message.partition()] = max(ends.get(message.partition(), 0), message.offset() + 1)
    while waiting:
        producer.poll(0.01)
    offsets = [TopicPartition("in", partition, end) for partition, end in ends.items()]
    producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
    producer.commit_transaction(30)
    done += len(batch)
took = time.perf_counter() - began
mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"rate": done / took, "mib": mib}))
