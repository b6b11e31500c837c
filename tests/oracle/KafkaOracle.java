import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintWriter;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.zip.CRC32C;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.*;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.serialization.*;

/**
 * Fills topics with Kafka's own Java client and says what its consumer reads back: the oracle for our reader.
 * One command a line on stdin, one answer a line on stdout: "ok ..." or "error ...".
 */
public class KafkaOracle {
    static String bootstrap;
    static Admin admin;
    static final List<KafkaConsumer<byte[], byte[]>> joined = new ArrayList<>();
    static final Map<String, KafkaProducer<byte[], byte[]>> open = new HashMap<>();

    public static void main(String[] args) throws Exception {
        bootstrap = args[0];
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        System.out.println("ok ready");
        for (String line; (line = in.readLine()) != null; ) {
            String answer;
            try {
                answer = "ok " + run(line.trim().split(" "));
            } catch (Throwable error) {
                answer = "error " + line + ": " + error.toString().replace('\n', ' ');
            }
            System.out.println(answer);
        }
        for (KafkaProducer<byte[], byte[]> producer : open.values()) producer.close(Duration.ZERO);
        System.exit(0);
    }

    static String run(String[] a) throws Exception {
        switch (a[0]) {
            case "create": return create(a);
            case "produce": return produce(a[1], num(a[2]), a[3], num(a[4]), num(a[5]));
            case "cases": return cases(a[1]);
            case "transactions": return transactions(a[1], num(a[2]), a[3]);
            case "begin": return begin(a[1], a[2], num(a[3]), num(a[4]));
            case "commit": open.remove(a[1]).commitTransaction(); return "";
            case "abort": open.remove(a[1]).abortTransaction(); return "";
            case "compact": return compact(a[1], a[2].equals("transactional"));
            case "delete-records":
                admin.deleteRecords(Map.of(new TopicPartition(a[1], num(a[2])), RecordsToDelete.beforeOffset(num(a[3])))).all().get();
                return "";
            case "delete-topic": admin.deleteTopics(List.of(a[1])).all().get(); return "";
            case "move": return move(a[1], num(a[2]), num(a[3]));
            case "reassign": return reassign(a[1], num(a[2]), num(a[3]));
            case "leader": return "" + leader(a[1], num(a[2]));
            case "dump": return dump(a[1], a[2], a[3]);
            case "lag": return lag(a[1]);
            case "join": return join(a[1], a[2]);
            case "allow": return allow(a[1], a[2]);
            default: throw new IllegalArgumentException("unknown command");
        }
    }

    static int num(String text) { return Integer.parseInt(text); }

    static String create(String[] a) throws Exception {
        Map<String, String> configs = new HashMap<>();
        for (int i = 4; i < a.length; i++) configs.put(a[i].split("=")[0], a[i].split("=")[1]);
        NewTopic topic = new NewTopic(a[1], num(a[2]), (short) num(a[3])).configs(configs);
        for (int attempt = 0; ; attempt++) {
            try {
                admin.createTopics(List.of(topic)).all().get();
                break;
            } catch (java.util.concurrent.ExecutionException error) {
                // A topic that is being deleted still has its name for a moment.
                if (attempt > 50 || !error.getCause().toString().contains("Exists")) throw error;
                Thread.sleep(200);
            }
        }
        for (int p = 0; p < num(a[2]); p++) while (leader(a[1], p) < 0) Thread.sleep(50);
        return "";
    }

    static int leader(String topic, int partition) throws Exception {
        try {
            Node leader = admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().get(partition).leader();
            return leader == null ? -1 : leader.id();
        } catch (java.util.concurrent.ExecutionException error) {
            if (error.getCause().toString().contains("UnknownTopic")) return -1;
            throw error;
        }
    }

    static KafkaProducer<byte[], byte[]> producer(String codec, String transactionalId) {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", bootstrap);
        c.put("compression.type", codec);
        c.put("linger.ms", "5");
        c.put("max.request.size", "20000000");
        c.put("buffer.memory", "64000000");
        if (transactionalId != null) c.put("transactional.id", transactionalId);
        else c.putAll(Map.of("enable.idempotence", "false", "max.in.flight.requests.per.connection", "1"));
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(c, new ByteArraySerializer(), new ByteArraySerializer());
        if (transactionalId != null) producer.initTransactions();
        return producer;
    }

    static byte[] bytes(String text) { return text.getBytes(StandardCharsets.UTF_8); }

    static byte[] value(int n, int size) {
        StringBuilder text = new StringBuilder("{\"n\":" + n);
        Random random = new Random(n);
        while (text.length() < size - 2) text.append(",\"f").append(random.nextInt(50)).append("\":").append(random.nextInt());
        return bytes(text.append('}').toString());
    }

    /** Records for one partition, or round robin over all where the partition is -1. */
    static String produce(String topic, int partition, String codec, int count, int size) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer(codec, null)) {
            int partitions = partition >= 0 ? 1 : producer.partitionsFor(topic).size();
            Exception[] failure = {null};
            for (int n = 0; n < count; n++) {
                int to = partition >= 0 ? partition : n % partitions;
                producer.send(new ProducerRecord<>(topic, to, bytes("k" + n), value(n, size)), (sent, error) -> {
                    if (error != null) failure[0] = error;
                });
            }
            producer.flush();
            if (failure[0] != null) throw failure[0];
        }
        return "";
    }

    static String cases(String topic) throws Exception {
        try (KafkaProducer<byte[], byte[]> producer = producer("lz4", null)) {
            byte[][] keys = {null, new byte[0], bytes("key"), {(byte) 0xff, 0, (byte) 0xfe}};
            byte[][] values = {null, new byte[0], bytes("value"), {(byte) 0xc3, 0x28, 10, 13}, new byte[900_000], new byte[5_000_000]};
            List<List<Header>> headers = List.of(
                List.of(),
                List.of(new RecordHeader("a", bytes("1"))),
                List.of(new RecordHeader("a", bytes("1")), new RecordHeader("a", bytes("2")), new RecordHeader("b", (byte[]) null)),
                List.of(new RecordHeader("", new byte[0]), new RecordHeader("\u00fc\u4e2d", bytes("x"))));
            for (byte[] key : keys) for (byte[] value : values) for (List<Header> each : headers) {
                boolean large = value != null && value.length > 100_000;
                if (large && !each.isEmpty()) continue;
                producer.send(new ProducerRecord<>(topic, 0, 1700000000000L, key, value, each));
                if (large) producer.flush();
            }
            producer.flush();
        }
        return "";
    }

    /** Committed, aborted and plain records of several producers, interleaved; the last ones are markers. */
    static String transactions(String topic, int rounds, String codec) throws Exception {
        List<KafkaProducer<byte[], byte[]>> producers = new ArrayList<>();
        for (int i = 0; i < 3; i++) producers.add(producer(codec, topic + "-" + i));
        KafkaProducer<byte[], byte[]> plain = producer(codec, null);
        int partitions = plain.partitionsFor(topic).size();
        Random random = new Random(7);
        int n = 0;
        for (int round = 0; round < rounds; round++) {
            for (KafkaProducer<byte[], byte[]> producer : producers) producer.beginTransaction();
            for (int i = 0; i < 12; i++) {
                KafkaProducer<byte[], byte[]> producer = i % 4 == 3 ? plain : producers.get(random.nextInt(3));
                producer.send(new ProducerRecord<>(topic, random.nextInt(partitions), bytes("k" + n), value(n++, 60))).get();
            }
            for (KafkaProducer<byte[], byte[]> producer : producers) {
                if (random.nextBoolean()) producer.commitTransaction(); else producer.abortTransaction();
            }
        }
        for (KafkaProducer<byte[], byte[]> producer : producers) producer.close();
        plain.close();
        return "";
    }

    static String begin(String id, String topic, int partition, int count) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producer("none", id);
        producer.beginTransaction();
        for (int n = 0; n < count; n++) producer.send(new ProducerRecord<>(topic, partition, bytes(id), value(n, 50))).get();
        open.put(id, producer);
        return "";
    }

    /** Writes the same keys again and again until the cleaner removed records; the tail is not compacted. */
    static String compact(String topic, boolean transactional) throws Exception {
        TopicPartition partition = new TopicPartition(topic, 0);
        KafkaProducer<byte[], byte[]> producer = producer("lz4", transactional ? topic + "-t" : null);
        long written = 0;
        for (int attempt = 0; attempt < 60; attempt++) {
            for (int batch = 0; batch < 20; batch++) {
                if (transactional) producer.beginTransaction();
                for (int n = 0; n < 10; n++) {
                    byte[] value = n == 3 ? null : new byte[9000];
                    if (value != null) new Random(written).nextBytes(value);
                    producer.send(new ProducerRecord<>(topic, 0, bytes("k" + n + (n > 6 ? "-" + batch : "")), value));
                    written++;
                }
                producer.flush();
                if (transactional && batch % 3 == 2) producer.abortTransaction();
                else if (transactional) producer.commitTransaction();
            }
            Thread.sleep(300);
            long seen = 0;
            for (String line : records(topic, "read_uncommitted")) seen++;
            if (seen < written * 3 / 4) {
                producer.close();
                return seen + " of " + written;
            }
        }
        throw new IllegalStateException("the cleaner did not run");
    }

    static String move(String topic, int partition, int broker) throws Exception {
        TopicPartition tp = new TopicPartition(topic, partition);
        List<Integer> replicas = new ArrayList<>();
        for (Node node : admin.describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().get(partition).replicas()) replicas.add(node.id());
        replicas.remove((Integer) broker);
        replicas.add(0, broker);
        admin.alterPartitionReassignments(Map.of(tp, Optional.of(new NewPartitionReassignment(replicas)))).all().get();
        for (int attempt = 0; leader(topic, partition) != broker; attempt++) {
            if (attempt > 200) throw new IllegalStateException("leader did not move");
            try {
                admin.electLeaders(ElectionType.PREFERRED, Set.of(tp)).all().get();
            } catch (java.util.concurrent.ExecutionException notYet) {
                Thread.sleep(50);
            }
        }
        return "";
    }

    /** The only replica goes to another broker. */
    static String reassign(String topic, int partition, int broker) throws Exception {
        TopicPartition tp = new TopicPartition(topic, partition);
        admin.alterPartitionReassignments(Map.of(tp, Optional.of(new NewPartitionReassignment(List.of(broker))))).all().get();
        while (leader(topic, partition) != broker || !admin.listPartitionReassignments(Set.of(tp)).reassignments().get().isEmpty()) Thread.sleep(50);
        return "";
    }

    static String hex(byte[] bytes) {
        if (bytes == null) return "-";
        if (bytes.length > 100) {
            CRC32C crc = new CRC32C();
            crc.update(bytes, 0, bytes.length);
            return bytes.length + "#" + String.format("%08x", crc.getValue());
        }
        return "x" + HexFormat.of().formatHex(bytes);
    }

    static String dump(String topic, String isolation, String file) throws Exception {
        List<String> lines = records(topic, isolation);
        try (PrintWriter out = new PrintWriter(file, "UTF-8")) {
            for (String line : lines) out.print(line + "\n");
        }
        return "" + lines.size();
    }

    static List<String> records(String topic, String isolation) throws Exception {
        List<String> lines = new ArrayList<>();
        Map<String, Object> c = Map.of("bootstrap.servers", bootstrap, "isolation.level", isolation, "auto.offset.reset", "none",
            "max.partition.fetch.bytes", "2000000", "allow.auto.create.topics", "false");
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(c, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (PartitionInfo info : consumer.partitionsFor(topic)) partitions.add(new TopicPartition(topic, info.partition()));
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (partitions.stream().anyMatch(p -> consumer.position(p) < ends.get(p))) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(Duration.ofMillis(200))) {
                    StringBuilder headers = new StringBuilder();
                    for (Header h : r.headers()) headers.append(' ').append(hex(bytes(h.key()))).append('=').append(hex(h.value()));
                    lines.add(String.format("%05d %020d %d %s %s%s", r.partition(), r.offset(), r.timestamp(), hex(r.key()), hex(r.value()), headers));
                }
            }
        }
        Collections.sort(lines);
        return lines;
    }

    /** A member that stays in the group. */
    static String join(String group, String topic) throws Exception {
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(Map.of("bootstrap.servers", bootstrap, "group.id", group),
            new ByteArrayDeserializer(), new ByteArrayDeserializer());
        consumer.subscribe(List.of(topic));
        while (consumer.assignment().isEmpty()) consumer.poll(Duration.ofMillis(100));
        joined.add(consumer);
        return "";
    }

    static String allow(String user, String topic) throws Exception {
        var pattern = new org.apache.kafka.common.resource.ResourcePattern(org.apache.kafka.common.resource.ResourceType.TOPIC, topic,
            org.apache.kafka.common.resource.PatternType.LITERAL);
        var entry = new org.apache.kafka.common.acl.AccessControlEntry("User:" + user, "*", org.apache.kafka.common.acl.AclOperation.READ,
            org.apache.kafka.common.acl.AclPermissionType.ALLOW);
        admin.createAcls(List.of(new org.apache.kafka.common.acl.AclBinding(pattern, entry))).all().get();
        return "";
    }

    /** Committed offsets of a group, as kafka-consumer-groups sees them. */
    static String lag(String group) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        List<String> out = new ArrayList<>();
        offsets.forEach((p, o) -> out.add(p + "=" + o.offset()));
        Collections.sort(out);
        return String.join(" ", out);
    }
}
