"""Records by Confluent's serialisers, and predictions by its deserialiser; see `run`."""

import datetime
import decimal
import json
import struct
import sys

import cbor2
import msgpack
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.schema_registry.schema_registry_client import SchemaReference
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2, wrappers_pb2

NOW = datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)
PRICE = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
KINDS = {"type": "enum", "name": "Kind", "symbols": ["A", "B"]}
MOMENT = {"type": "long", "logicalType": "timestamp-millis"}


def record(name, *fields):
    return json.dumps({"type": "record", "name": name, "fields": list(fields)})


def field(name, of, **more):
    return {"name": name, "type": of, **more}


def avro(registry):
    """Schemas of Avro, a record of each without its x, and what they refer to."""
    x = field("x", "double")
    deep = {"type": "record", "name": "Deep", "fields": [field("l", {"type": "array", "items": "string"})]}
    yield record("Plain", x), {}, []
    yield record("Optional", field("note", ["null", "string"], default=None), field("x", ["null", "double"])), {"note": "é"}, []
    yield record("Whole", field("x", "long"), field("flag", "boolean")), {"flag": True}, []
    logical = record("Logical", field("price", PRICE), field("at", MOMENT), field("kind", KINDS), x)
    yield logical, {"price": decimal.Decimal("12.34"), "at": NOW, "kind": "B"}, []
    parts = record("Parts", field("m", {"type": "map", "values": "int"}), field("deep", ["null", deep]), x)
    yield parts, {"m": {"a": 1}, "deep": {"l": ["b", "c"]}}, []
    registry.register_schema("side", Schema(json.dumps({"type": "enum", "name": "Side", "symbols": ["BUY", "SELL"]}), "AVRO"))
    yield record("Trade", field("side", "Side"), x), {"side": "SELL"}, [SchemaReference("Side", "side", 1)]


def of_json(registry):
    """The same of JSON Schema."""
    begin = {"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}
    yield json.dumps({**begin, "title": "Row", "properties": {"x": {"type": "number"}}}), {}
    deep = {"type": "object", "properties": {"b": {"type": "array"}}}
    yield json.dumps({**begin, "title": "Deep", "properties": {"x": {"type": "number"}, "a": deep}}), {"a": {"b": [1, "é"]}}


def proto():
    """Classes of Protobuf, as protoc would make them of shop.proto and side.proto."""
    field, pool = descriptor_pb2.FieldDescriptorProto, descriptor_pool.DescriptorPool()
    for known in (timestamp_pb2, wrappers_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)

    def add(message, name, number, kind, of=None, label=field.LABEL_OPTIONAL):
        message.field.add(name=name, number=number, type=kind, label=label, type_name=of)

    side = descriptor_pb2.FileDescriptorProto(name="side.proto", package="shop", syntax="proto3")
    sides = side.enum_type.add(name="Side")
    sides.value.add(name="BUY", number=0)
    sides.value.add(name="SELL", number=1)
    shop = descriptor_pb2.FileDescriptorProto(name="shop.proto", package="shop", syntax="proto3")
    shop.dependency.extend(["side.proto", "google/protobuf/timestamp.proto", "google/protobuf/wrappers.proto"])
    first = shop.message_type.add(name="First")
    add(first, "x", 1, field.TYPE_DOUBLE)
    second = shop.message_type.add(name="Second")
    add(second, "side", 1, field.TYPE_ENUM, ".shop.Side")
    add(second, "at", 2, field.TYPE_MESSAGE, ".google.protobuf.Timestamp")
    add(second, "x", 300, field.TYPE_MESSAGE, ".google.protobuf.DoubleValue")
    inner = second.nested_type.add(name="Inner")
    add(inner, "marks", 1, field.TYPE_SINT32, label=field.LABEL_REPEATED)
    add(inner, "x", 2, field.TYPE_FLOAT)
    old = descriptor_pb2.FileDescriptorProto(name="old.proto", syntax="proto2")
    third = old.message_type.add(name="Third")
    add(third, "x", 1, field.TYPE_INT32)
    for file in (side, shop, old):
        pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
            for name in ("shop.First", "shop.Second", "shop.Second.Inner", "Third")}


def of_protobuf(x):
    """Messages of Protobuf with an x."""
    classes = proto()
    yield classes["shop.First"](x=x)
    second = classes["shop.Second"](side=1)
    second.x.value = x + 1
    second.at.GetCurrentTime()
    yield second
    yield classes["shop.Second.Inner"](marks=[-1, 2], x=x + 2)
    yield classes["Third"](x=x + 3)


def write(servers, registry, topic):
    registry, producer = SchemaRegistryClient({"url": registry}), Producer({"bootstrap.servers": servers})
    values = []

    def add(serializer, media_type, value, strategy):
        about = SerializationContext(f"{topic}-{strategy}", MessageField.VALUE)
        values.append((serializer(value, about), media_type))

    for place, (schema, row, references) in enumerate(avro(registry)):
        serializer = AvroSerializer(registry, Schema(schema, "AVRO", references))
        of = int if '"Whole"' in schema else float
        add(serializer, "application/avro", {**row, "x": of(len(values))}, f"avro{place}")
    for place, (schema, row) in enumerate(of_json(registry)):
        add(JSONSerializer(schema, registry), "application/json", {**row, "x": len(values)}, f"json{place}")
    for place, message in enumerate(of_protobuf(len(values))):
        serializer = ProtobufSerializer(type(message), registry, {"use.deprecated.format": False})
        add(serializer, "application/x-protobuf", message, f"protobuf{place}")
    # The schema's id beside the value, as Apicurio's serialisers have it where apicurio.registry.headers.enabled is set.
    schema = Schema(record("Beside", field("x", "double")), "AVRO")
    about = SerializationContext(f"{topic}-beside", MessageField.VALUE)
    framed = AvroSerializer(registry, schema)({"x": float(len(values))}, about)
    content = ("apicurio.value.contentId", struct.pack(">q", *struct.unpack(">i", framed[1:5])))
    values.append((framed[5:], "application/avro", content, ("apicurio.value.encoding", b"BINARY")))
    # Without a registry, and what its topic says.
    values.append((msgpack.packb({"x": len(values), "raw": b"\xff", "at": NOW}, datetime=True), "application/msgpack"))
    values.append((cbor2.dumps({"x": decimal.Decimal(len(values)), "raw": b"\xff", "at": NOW}), "application/cbor"))
    values.append((json.dumps({"x": len(values)}).encode(), None))
    for value, media_type, *more in values:
        headers = [("content-type", media_type)] if media_type else []
        producer.produce(topic, value, headers=headers + more, partition=0)
    producer.flush(30)
    print(len(values))


def read(servers, registry, topic):
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    settings = {"bootstrap.servers": servers, "group.id": "clients", "enable.partition.eof": True,
                "isolation.level": "read_committed", "enable.auto.commit": False}
    consumer = Consumer(settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    while True:
        message = consumer.poll(30)
        if message is None:
            raise SystemExit(f"{topic} has no end within 30 s")
        if message.error():
            break
        print(json.dumps(deserialize(message.value(), SerializationContext(topic, MessageField.VALUE)), default=str))


{"write": write, "read": read}[sys.argv[1]](*sys.argv[2:])
