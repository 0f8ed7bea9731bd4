import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDate;
import java.time.LocalDateTime;
import java.time.LocalTime;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;

import io.apicurio.registry.serde.avro.AvroKafkaDeserializer;
import io.apicurio.registry.serde.avro.AvroKafkaSerializer;
import org.apache.avro.Conversions;
import org.apache.avro.Schema;
import org.apache.avro.data.TimeConversions;
import org.apache.avro.generic.GenericData;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Records by Apicurio's serialisers, and predictions by its deserialisers; see `run`. */
public final class Serdes {
    static final Duration PATIENCE = Duration.ofSeconds(30);

    static final String DEREFERENCE = "apicurio.registry.dereference-schema";

    /** A schema, the fields of a record of it, its text as JSON (@ stands for its x), and what a model adds to x for it. */
    record Row(String schema, Map<String, Object> fields, String text, double more) {}

    /** What a serialiser is told, to which topic it writes, and what a dead letter of it says, if it is one. */
    record Form(String topic, Map<String, Object> settings, String letter) {}

    /** A class whose schema Avro makes itself. */
    public static final class Plain {
        double x;
        String note = "of a class";
        int[] list = {1, 8};
        Inner deep = new Inner();
    }

    /** A part of it. */
    public static final class Inner {
        long y = 32;
    }

    static GenericData.Record filled(Schema schema, Map<?, ?> fields) {
        var record = new GenericData.Record(schema);
        fields.forEach((name, value) -> {
            var of = schema.getField(name.toString()).schema();
            record.put(name.toString(), built(of, value));
        });
        for (var field : schema.getFields()) {
            if (!fields.containsKey(field.name()) && field.hasDefaultValue()) {
                record.put(field.name(), GenericData.get().getDefaultValue(field));
            }
        }
        return record;
    }

    /** A value as Avro's generic data has it. */
    static Object built(Schema of, Object value) {
        return switch (of.getType()) {
            case UNION -> {
                if (value == null) yield null;
                var some = of.getTypes().stream().filter(type -> fits(type, value)).findFirst();
                yield built(some.orElseThrow(), value);
            }
            case RECORD -> filled(of, (Map<?, ?>) value);
            case ENUM -> new GenericData.EnumSymbol(of, value);
            case FIXED -> of.getLogicalType() == null || value instanceof byte[] ? new GenericData.Fixed(of, (byte[]) value) : value;
            case ARRAY -> ((List<?>) value).stream().map(item -> built(of.getElementType(), item)).toList();
            case MAP -> {
                var built = new LinkedHashMap<String, Object>();
                ((Map<?, ?>) value).forEach((key, part) -> built.put((String) key, built(of.getValueType(), part)));
                yield built;
            }
            default -> value;
        };
    }

    /** Whether a value is of a branch that is not null. */
    static boolean fits(Schema type, Object value) {
        return switch (type.getType()) {
            case NULL -> false;
            case STRING -> value instanceof String;
            case LONG -> value instanceof Long || type.getLogicalType() != null;
            case ARRAY -> value instanceof List;
            default -> !(value instanceof String || value instanceof Long || value instanceof List);
        };
    }

    static Map<String, Object> fields(Object... namesAndValues) {
        var fields = new LinkedHashMap<String, Object>();
        for (int i = 0; i < namesAndValues.length; i += 2) fields.put((String) namesAndValues[i], namesAndValues[i + 1]);
        return fields;
    }

    static List<Row> rows() {
        var moment = Instant.parse("2026-01-02T03:04:05.678901Z");
        var uuid = UUID.fromString("6f1c2b3a-0000-4000-8000-00000000abcd");
        return List.of(
            new Row("""
                {"type": "record", "name": "Bare", "fields": [{"name": "x", "type": "double"}]}""",
                fields(), """
                {"x":@}""", 0),
            new Row("""
                {"type": "record", "name": "Optional", "namespace": "shop", "fields": [
                 {"name": "note", "type": ["null", "string"], "default": null}, {"name": "none", "type": ["string", "null"]},
                 {"name": "item", "type": ["null", "long"], "default": null}, {"name": "x", "type": ["null", "double"]}]}""",
                fields("note", "é\u0000\"𝄞", "none", null), """
                {"note":"é\\u0000\\"𝄞","none":null,"item":null,"x":@}""", 0),
            new Row("""
                {"type": "record", "name": "Whole", "namespace": "shop", "fields": [{"name": "x", "type": "long"},
                 {"name": "flag", "type": "boolean"}, {"name": "least", "type": "int"}, {"name": "most", "type": "long"},
                 {"name": "small", "type": "float"}]}""",
                fields("flag", true, "least", Integer.MIN_VALUE, "most", Long.MAX_VALUE, "small", -0.1f), """
                {"x":@,"flag":true,"least":-2147483648,"most":9223372036854775807,"small":-0.1}""", 0),
            new Row("""
                {"type": "record", "name": "Raw", "namespace": "shop", "fields": [
                 {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"], "default": "A"}},
                 {"name": "again", "type": ["null", "Kind"]}, {"name": "bytes", "type": "bytes"},
                 {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}}, {"name": "x", "type": "double"}]}""",
                fields("kind", "B", "again", null, "bytes", ByteBuffer.wrap(new byte[] {0, -1}), "hash", new byte[] {1, 2, 3, -128}), """
                {"kind":"B","again":null,"bytes":"AP8=","hash":"AQIDgA==","x":@}""", 0),
            new Row("""
                {"type": "record", "name": "Lists", "namespace": "shop", "fields": [
                 {"name": "list", "type": {"type": "array", "items": "int"}},
                 {"name": "none", "type": {"type": "array", "items": "string"}},
                 {"name": "lines", "type": {"type": "array", "items": {"type": "record", "name": "Line", "fields": [
                  {"name": "sku", "type": "string"}, {"name": "count", "type": ["null", "int"], "default": null}]}}},
                 {"name": "x", "type": "double"}]}""",
                fields("list", List.of(1, 2, 3), "none", List.of(),
                    "lines", List.of(fields("sku", "a", "count", -7), fields("sku", "ä"))), """
                {"list":[1,2,3],"none":[],"lines":[{"sku":"a","count":-7},{"sku":"ä","count":null}],"x":@}""", 2),
            new Row("""
                {"type": "record", "name": "Maps", "namespace": "shop", "fields": [
                 {"name": "marks", "type": {"type": "map", "values": "int"}},
                 {"name": "of", "type": {"type": "map", "values": {"type": "array", "items": ["null", "double"]}}},
                 {"name": "x", "type": "double"}]}""",
                fields("marks", fields("a", 16), "of", Collections.singletonMap("", Arrays.asList(null, 0.5))), """
                {"marks":{"a":16},"of":{"":[null,0.5]},"x":@}""", 16),
            new Row("""
                {"type": "record", "name": "Nested", "namespace": "shop", "fields": [{"name": "deep", "type": ["null",
                 {"type": "record", "name": "Deep", "namespace": "shop.parts", "fields": [{"name": "y", "type": "float"},
                  {"name": "deeper", "type": {"type": "record", "name": "Deeper", "fields": [{"name": "z", "type": "string"}]}}]}]},
                 {"name": "second", "type": "shop.parts.Deep"}, {"name": "x", "type": "double"}]}""",
                fields("deep", fields("y", 0.5f, "deeper", fields("z", "1")), "second", fields("y", 2f, "deeper", fields("z", ""))), """
                {"deep":{"y":0.5,"deeper":{"z":"1"}},"second":{"y":2.0,"deeper":{"z":""}},"x":@}""", 0.5),
            new Row("""
                {"type": "record", "name": "Money", "namespace": "shop", "fields": [
                 {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
                 {"name": "debt", "type": {"type": "fixed", "name": "Debt", "size": 16, "logicalType": "decimal", "precision": 38, "scale": 10}},
                 {"name": "whole", "type": ["null", {"type": "bytes", "logicalType": "decimal", "precision": 4}]},
                 {"name": "x", "type": "double"}]}""",
                fields("price", new BigDecimal("12.25"), "debt", new BigDecimal("-1234567890123456789012345678.0000000001"),
                    "whole", new BigDecimal("-1")), """
                {"price":12.25,"debt":-1234567890123456789012345678.0000000001,"whole":-1,"x":@}""", 12.25),
            new Row("""
                {"type": "record", "name": "Times", "namespace": "shop", "fields": [
                 {"name": "day", "type": {"type": "int", "logicalType": "date"}},
                 {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
                 {"name": "exactly", "type": {"type": "long", "logicalType": "timestamp-micros"}},
                 {"name": "here", "type": ["null", {"type": "long", "logicalType": "local-timestamp-millis"}]},
                 {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}},
                 {"name": "hour", "type": {"type": "long", "logicalType": "time-micros"}}, {"name": "x", "type": "double"}]}""",
                fields("day", LocalDate.of(1969, 12, 31), "at", moment, "exactly", moment,
                    "here", LocalDateTime.of(2026, 1, 2, 3, 4), "time", LocalTime.of(1, 0), "hour", LocalTime.of(23, 59, 59, 999_999_000)), """
                {"day":-1,"at":1767323045678,"exactly":1767323045678901,"here":1767323040000,"time":3600000,"hour":86399999999,"x":@}""",
                -1 + 1767323045678.0),
            new Row("""
                {"type": "record", "name": "Ids", "namespace": "shop", "fields": [
                 {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
                 {"name": "short", "type": {"type": "fixed", "name": "Short", "size": 16, "logicalType": "uuid"}},
                 {"name": "none", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": null},
                 {"name": "lasts", "type": {"type": "fixed", "name": "Lasts", "size": 12, "logicalType": "duration"}},
                 {"name": "x", "type": "double"}]}""",
                fields("id", uuid, "short", uuid, "lasts", new byte[] {1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}), """
                {"id":"6f1c2b3a-0000-4000-8000-00000000abcd","short":"6f1c2b3a-0000-4000-8000-00000000abcd","none":null,\
                "lasts":{"months":1,"days":2,"millis":3},"x":@}""", 0),
            new Row("""
                {"type": "record", "name": "Named", "namespace": "shop", "aliases": ["Former", "old.Name"], "doc": "é", "fields": [
                 {"name": "x", "type": "double", "aliases": ["ex"], "doc": "what a model reads"},
                 {"name": "size", "type": "int", "default": 7, "order": "descending"},
                 {"name": "tags", "type": {"type": "array", "items": "string"}, "default": ["a"]},
                 {"name": "inner", "type": {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "long", "default": -1}]},
                  "default": {}}, {"name": "unit", "type": "string", "default": "kg", "custom": {"a": [1]}}]}""",
                fields(), """
                {"x":@,"size":7,"tags":["a"],"inner":{"n":-1},"unit":"kg"}""", 0),
            new Row("""
                {"type": "record", "name": "Tree", "namespace": "shop", "fields": [{"name": "x", "type": "double"},
                 {"name": "left", "type": ["null", "Tree"], "default": null},
                 {"name": "others", "type": {"type": "array", "items": "Tree"}, "default": []}]}""",
                fields("left", fields("x", 1.5, "left", fields("x", -0.0)), "others", List.of(fields("x", 1e300))), """
                {"x":@,"left":{"x":1.5,"left":{"x":-0.0,"left":null,"others":[]},"others":[]},\
                "others":[{"x":1e+300,"left":null,"others":[]}]}""", 0),
            new Row("""
                {"type": "record", "name": "Either", "namespace": "shop", "fields": [{"name": "first",
                 "type": ["null", "string", "long", {"type": "record", "name": "Point", "fields": [{"name": "lat", "type": "double"}]}]},
                 {"name": "second", "type": ["Point", "long", "string"]}, {"name": "third", "type": {"type": "array", "items":
                 ["null", "string", "Point"]}}, {"name": "x", "type": ["double", "null"]}]}""",
                fields("first", fields("lat", 0.25), "second", 5L, "third", Arrays.asList("s", null, fields("lat", -1.0))), """
                {"first":{"lat":0.25},"second":5,"third":["s",null,{"lat":-1.0}],"x":@}""", 0));
    }

    /** A record by a schema that the reader's takes for its own by its aliases, promoting x. */
    static final Row FORMER = new Row("""
        {"type": "record", "name": "Former", "namespace": "shop", "fields": [{"name": "gone", "type": "string"},
         {"name": "ex", "type": "int"}]}""", Map.of("gone", "g"), """
        {"gone":"g","x":@,"size":7,"price":7,"tags":["a"]}""", 7);

    /** How this version of the serdes is told to write. */
    static List<Form> forms(boolean old) {
        var content = Map.<String, Object>of("apicurio.registry.use-id", "contentId");
        var global = Map.<String, Object>of("apicurio.registry.use-id", "globalId");
        var headers = Map.<String, Object>of("apicurio.registry.headers.enabled", true);
        var four = Map.<String, Object>of("apicurio.registry.as-confluent", true);
        var eight = Map.<String, Object>of("apicurio.registry.id-handler", "io.apicurio.registry.serde.Legacy8ByteIdHandler");
        var json = Map.<String, Object>of("apicurio.registry.avro.encoding", "JSON");
        var none = Map.<String, Object>of();
        if (old) {
            // Version 2 writes headers where nothing else is said.
            var before = Map.<String, Object>of("apicurio.registry.headers.enabled", false);
            return List.of(
                good("in", both(both(before, four), content)), good("in", content),
                good("content-in", both(before, content)),
                good("global-in", none), good("global-in", before), good("global-in", both(before, four)),
                bad(before, "has an id in 8 bytes"), bad(none, "the header apicurio.value.globalId"));
        }
        return List.of(
            good("in", none), good("in", Map.of(DEREFERENCE, true)), good("in", headers),
            good("content-in", eight),
            good("global-in", both(eight, global)), good("global-in", both(headers, global)), good("global-in", global),
            bad(eight, "has an id in 8 bytes"), bad(both(headers, global), "the header apicurio.value.globalId"),
            bad(both(headers, json), "is Avro in JSON"));
    }

    static Form good(String topic, Map<String, Object> settings) {
        return new Form(topic, settings, null);
    }

    static Form bad(Map<String, Object> settings, String letter) {
        return new Form("in", settings, letter);
    }

    static Map<String, Object> both(Map<String, Object> one, Map<String, Object> other) {
        var both = new HashMap<>(one);
        both.putAll(other);
        return both;
    }

    final boolean old;
    final Map<String, Object> settings;
    /** How many records each topic has. */
    final Map<String, Integer> counts = new HashMap<>();

    Serdes(boolean old, String servers, String registry) {
        this.old = old;
        settings = both(
            Map.of("bootstrap.servers", servers, "max.block.ms", PATIENCE.toMillis(), "isolation.level", "read_committed"),
            Map.of("apicurio.registry.url", registry + "/apis/registry/v" + (old ? 2 : 3), "apicurio.registry.auto-register", true,
                "apicurio.registry.artifact-resolver-strategy", "io.apicurio.registry.serde.avro.strategy.RecordIdStrategy"));
    }

    KafkaProducer<byte[], Object> producer(Form form) {
        var serializer = new AvroKafkaSerializer<Object>();
        serializer.configure(both(settings, form.settings), false);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), serializer);
    }

    void write() throws Exception {
        for (var conversion : List.of(new Conversions.DecimalConversion(), new Conversions.UUIDConversion(),
                new TimeConversions.DateConversion(), new TimeConversions.TimeMillisConversion(),
                new TimeConversions.TimeMicrosConversion(), new TimeConversions.TimestampMillisConversion(),
                new TimeConversions.TimestampMicrosConversion(), new TimeConversions.LocalTimestampMillisConversion())) {
            GenericData.get().addLogicalTypeConversion(conversion);
        }
        for (var form : forms(old)) write(form, form.letter == null ? rows() : rows().subList(0, 1));
        var plain = forms(old).get(0).settings;
        write(good("evolved-in", plain), List.of(FORMER));
        writeReflected(good("in", both(plain, Map.of("apicurio.registry.avro-datum-provider",
            "io.apicurio.registry.serde.avro.ReflectAvroDatumProvider"))));
    }

    void write(Form form, List<Row> rows) throws Exception {
        try (var producer = producer(form)) {
            for (var row : rows) {
                // Version 3 takes a schema apart for ever that refers to itself, unless it leaves it as it is.
                if (!old && row.schema.contains("Tree") && !form.settings.containsKey(DEREFERENCE)) continue;
                int place = form.letter == null ? counts.merge(form.topic, 1, Integer::sum) : 0;
                var schema = new Schema.Parser().parse(row.schema);
                var record = filled(schema, row.fields);
                var field = schema.getFields().stream().filter(of -> List.of("x", "ex").contains(of.name())).findFirst().get();
                Object x = switch (field.schema().getType()) {
                    case INT -> place;
                    case LONG -> (long) place;
                    default -> (double) place;
                };
                record.put(field.pos(), x);
                send(producer, form, record, row.text.replace("@", x.toString()), place + row.more);
            }
        }
    }

    /** Writes a record by the schema that its class has. */
    void writeReflected(Form form) throws Exception {
        try (var producer = producer(form)) {
            var plain = new Plain();
            plain.x = counts.merge(form.topic, 1, Integer::sum);
            var text = """
                {"deep":{"y":32},"list":[1,8],"note":"of a class","x":@}""".replace("@", "" + plain.x);
            send(producer, form, plain, text, plain.x + plain.list[1] + plain.deep.y);
        }
    }

    /** Writes a record, and says how it is to be answered. */
    static void send(KafkaProducer<byte[], Object> producer, Form form, Object record, String text, double value) throws Exception {
        producer.send(new ProducerRecord<>(form.topic, 0, null, record)).get();
        System.out.println(form.letter == null ? form.topic + "\t" + value + "\t" + text : form.topic + "\tletter\t" + form.letter);
    }

    void read(String topic, String id) {
        var deserializer = new AvroKafkaDeserializer<Object>();
        deserializer.configure(both(settings, Map.of("apicurio.registry.as-confluent", true, "apicurio.registry.use-id", id)), false);
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), deserializer)) {
            var partition = new TopicPartition(topic, 0);
            consumer.assign(List.of(partition));
            consumer.seekToBeginning(List.of(partition));
            long end = consumer.endOffsets(List.of(partition)).get(partition);
            long deadline = System.nanoTime() + PATIENCE.toNanos();
            while (consumer.position(partition) < end) {
                if (deadline < System.nanoTime()) throw new IllegalStateException(topic + " has no end within " + PATIENCE);
                for (var record : consumer.poll(PATIENCE)) System.out.println(topic + "\t" + record.value());
            }
        }
    }

    public static void main(String[] arguments) throws Exception {
        var serdes = new Serdes(arguments[0].equals("2"), arguments[2], arguments[3]);
        if (arguments[1].equals("write")) {
            serdes.write();
        } else {
            for (var topicAndId : Arrays.asList(arguments).subList(4, arguments.length)) {
                serdes.read(topicAndId.split(":")[0], topicAndId.split(":")[1]);
            }
        }
        // Version 3 leaves threads behind.
        System.exit(0);
    }
}
