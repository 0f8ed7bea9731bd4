#!/usr/bin/env python3
"""The Python side of `cargo bench --bench pipeline -- table`: a table through Kafka, exactly once, as a team would write it.

    table_peer.py loop SERVERS RECORDS ROWS BATCH SCHEMA OUT_SCHEMA   confluent-kafka, a transaction a batch; JSON without schemas
    table_peer.py quix SERVERS RECORDS ROWS                           Quix Streams, exactly-once, a row at a time

ROWS names the model's fields, a JSON list. Reads topic `in` from its start in a group of its own and writes `peer-out`. Prints one JSON
line: records a second from the first record to the last commit, and the CPU seconds that a million records cost. Needs: confluent-kafka,
numpy, orjson, scikit-learn; fastavro for schemas, quixstreams for quix.
"""
import io
import json
import pathlib
import sys
import time
import uuid
import warnings

import numpy as np
import orjson
from confluent_kafka import Consumer, Producer, TopicPartition
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

warnings.filterwarnings("ignore")
kind, servers, total, fields = sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4])
table = load_breast_cancer()
model = make_pipeline(SimpleImputer(), StandardScaler(), MLPClassifier((64, 32), max_iter=300, random_state=0))
model.fit(table.data, table.target)
labels = ["malignant", "benign"]
group = f"peer-{uuid.uuid4()}"


def answers(rows):
    for malignant, benign in model.predict_proba(np.array(rows, float)).tolist():
        label = "benign" if malignant < benign else "malignant"
        yield {"label": label, "score": max(malignant, benign), "scores": {"malignant": malignant, "benign": benign}}


def row(record):
    return [record.get(name) if record.get(name) is not None else np.nan for name in fields]


def by_hand():
    batch, decode, encode = int(sys.argv[5]), orjson.loads, orjson.dumps
    if len(sys.argv) > 6:
        import fastavro

        read, write = (fastavro.parse_schema(json.loads(pathlib.Path(path).read_text())) for path in sys.argv[6:8])

        def decode(value):
            return fastavro.schemaless_reader(io.BytesIO(value), read)

        def encode(answer):
            out = io.BytesIO()
            fastavro.schemaless_writer(out, write, {**answer, "key": None, "input": None})
            return out.getvalue()

    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False,
                         "auto.offset.reset": "earliest", "isolation.level": "read_committed"})
    producer = Producer({"bootstrap.servers": servers, "transactional.id": group, "linger.ms": 0, "compression.type": "zstd"})
    producer.init_transactions(30)
    consumer.subscribe(["in"])
    done, began, cpu = 0, None, 0
    waiting = 0

    def delivered(error, _message):
        nonlocal waiting
        if error:
            raise SystemExit(str(error))
        waiting -= 1

    while done < total:
        messages = [message for message in consumer.consume(batch, 1.0) if not message.error()]
        if not messages:
            continue
        if began is None:
            began, cpu = time.perf_counter(), time.process_time()
        rows = [row(decode(message.value())) for message in messages]
        waiting, ends = len(messages), {}
        producer.begin_transaction()
        for message, answer in zip(messages, answers(rows)):
            producer.produce("peer-out", encode(answer), message.key(), message.partition(), on_delivery=delivered)
            ends[message.partition()] = message.offset() + 1
        while waiting:
            producer.poll(0.01)
        offsets = [TopicPartition("in", partition, end) for partition, end in ends.items()]
        producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)
        done += len(messages)
    return done, time.perf_counter() - began, time.process_time() - cpu


def quix():
    from quixstreams import Application

    application = Application(broker_address=servers, consumer_group=group, auto_offset_reset="earliest",
                              processing_guarantee="exactly-once", loglevel=None)
    seen = {"done": 0, "began": 0.0, "cpu": 0.0}

    def predict(record):
        if not seen["done"]:
            seen["began"], seen["cpu"] = time.perf_counter(), time.process_time()
        seen["done"] += 1
        return next(answers([row(record)]))

    source = application.topic("in", value_deserializer="json")
    target = application.topic("peer-out", value_serializer="json")
    application.dataframe(source).apply(predict).to_topic(target)
    application.run(count=total)
    return seen["done"], time.perf_counter() - seen["began"], time.process_time() - seen["cpu"]


done, took, cpu = by_hand() if kind == "loop" else quix()
print(json.dumps({"rate": done / took, "cpu_s_per_million": cpu / done * 1e6}))
