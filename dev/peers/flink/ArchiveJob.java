// The load of dev/bench as a Flink job: a Kafka topic into one folder of compressed files for each app id.
//
// Owns: the id of a record, where a record goes, how a file is compressed, when the job checkpoints.
// Does not own: offsets, in-progress files, commits. Those are Flink's own KafkaSource and FileSink, which is what is compared.
//
// usage: ArchiveJob --bootstrap HOST:PORT --topic T --out DIR --checkpoints DIR --codec lz4|zstd|gzip|none
//                   [--group G] [--interval-ms 10000] [--parallelism 1] [--block-bytes 262144] [--unbounded] [--restore CHECKPOINT]
// Reads up to the ends of now, then ends with a last checkpoint, as `sluice run --until-caught-up` does. A restored job must be
// unbounded and be stopped: a bounded KafkaSource never ends once it was restored (FLINK-31006).

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonToken;
import com.github.luben.zstd.Zstd;
import com.github.luben.zstd.ZstdCompressCtx;
import java.io.FilterOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.zip.GZIPOutputStream;
import net.jpountz.lz4.LZ4FrameOutputStream;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.serialization.BulkWriter;
import org.apache.flink.api.common.serialization.DeserializationSchema;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.sink.FileSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.KafkaSourceBuilder;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.core.fs.Path;
import org.apache.flink.core.io.SimpleVersionedSerializer;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.sink.filesystem.BucketAssigner;
import org.apache.flink.streaming.api.functions.sink.filesystem.OutputFileConfig;
import org.apache.flink.streaming.api.functions.sink.filesystem.bucketassigners.SimpleVersionedStringSerializer;
import org.apache.flink.streaming.api.functions.sink.filesystem.rollingpolicies.OnCheckpointRollingPolicy;

public final class ArchiveJob {
    private static final String NO_APP = "_unknown";

    /** Finds the id where the value has it and keeps the value as it came. */
    static final class Records implements DeserializationSchema<Tuple2<String, byte[]>> {
        private static final JsonFactory JSON = new JsonFactory();

        @Override
        public Tuple2<String, byte[]> deserialize(byte[] value) throws IOException {
            return Tuple2.of(appId(value), value);
        }

        private static String appId(byte[] value) throws IOException {
            try (JsonParser json = JSON.createParser(value)) {
                if (json.nextToken() != JsonToken.START_OBJECT) {
                    return NO_APP;
                }
                for (String field = json.nextFieldName(); field != null; field = json.nextFieldName()) {
                    JsonToken token = json.nextToken();
                    if (field.equals("app_id")) {
                        return token == JsonToken.VALUE_STRING ? json.getText() : NO_APP;
                    }
                    json.skipChildren();
                }
                return NO_APP;
            }
        }

        @Override
        public boolean isEndOfStream(Tuple2<String, byte[]> record) {
            return false;
        }

        @Override
        public TypeInformation<Tuple2<String, byte[]>> getProducedType() {
            return Types.TUPLE(Types.STRING, Types.PRIMITIVE_ARRAY(Types.BYTE));
        }
    }

    static final class ByApp implements BucketAssigner<Tuple2<String, byte[]>, String> {
        @Override
        public String getBucketId(Tuple2<String, byte[]> record, Context context) {
            return record.f0;
        }

        @Override
        public SimpleVersionedSerializer<String> getSerializer() {
            return SimpleVersionedStringSerializer.INSTANCE;
        }
    }

    /**
     * Lines of one file, compressed a block at a time, each block a frame of its own. An encoder for each open file, as streams
     * would have it, cost a tenth more CPU and 90 MB more memory with 200 apps.
     */
    static final class Lines implements BulkWriter<Tuple2<String, byte[]>> {
        private static final int FIRST_BYTES = 8 << 10;
        private static final ThreadLocal<ZstdCompressCtx> ZSTD =
                ThreadLocal.withInitial(() -> new ZstdCompressCtx().setLevel(1).setChecksum(true));

        private final FSDataOutputStream file;
        private final String codec;
        private final int blockBytes;
        private byte[] block = new byte[FIRST_BYTES];
        private int length;

        Lines(FSDataOutputStream file, String codec, int blockBytes) {
            this.file = file;
            this.codec = codec;
            this.blockBytes = blockBytes;
        }

        @Override
        public void addElement(Tuple2<String, byte[]> record) throws IOException {
            byte[] line = record.f1;
            if (length > 0 && length + line.length >= blockBytes) {
                compress();
            }
            int end = length + line.length + 1;
            if (end > block.length) {
                block = Arrays.copyOf(block, Math.max(end, Math.min(blockBytes, 2 * block.length)));
            }
            System.arraycopy(line, 0, block, length, line.length);
            block[end - 1] = '\n';
            length = end;
        }

        @Override
        public void flush() {}

        /** The sink closes the file. */
        @Override
        public void finish() throws IOException {
            if (length > 0) {
                compress();
            }
        }

        private void compress() throws IOException {
            switch (codec) {
                case "zstd" -> {
                    byte[] frame = new byte[(int) Zstd.compressBound(length)];
                    file.write(frame, 0, ZSTD.get().compressByteArray(frame, 0, frame.length, block, 0, length));
                }
                case "lz4" -> stream(new LZ4FrameOutputStream(new LeftOpen(file), LZ4_BLOCK));
                case "gzip" -> stream(new GZIPOutputStream(new LeftOpen(file), 1 << 16));
                default -> file.write(block, 0, length);
            }
            length = 0;
        }

        private void stream(OutputStream encoder) throws IOException {
            try (encoder) {
                encoder.write(block, 0, length);
            }
        }
    }

    private static final LZ4FrameOutputStream.BLOCKSIZE LZ4_BLOCK = LZ4FrameOutputStream.BLOCKSIZE.SIZE_256KB;

    private static final class LeftOpen extends FilterOutputStream {
        LeftOpen(OutputStream out) {
            super(out);
        }

        @Override
        public void write(byte[] bytes, int start, int length) throws IOException {
            out.write(bytes, start, length);
        }

        @Override
        public void close() {}
    }

    private static String suffix(String codec) {
        return switch (codec) {
            case "lz4" -> ".log.lz4";
            case "zstd" -> ".log.zst";
            case "gzip" -> ".log.gz";
            default -> ".log";
        };
    }

    public static void main(String[] arguments) throws Exception {
        Map<String, String> given = new HashMap<>();
        for (int i = 0; i < arguments.length; i++) {
            String name = arguments[i].substring(2);
            given.put(name, name.equals("unbounded") ? "" : arguments[++i]);
        }
        String codec = given.get("codec");
        int blockBytes = Integer.parseInt(given.getOrDefault("block-bytes", "262144"));
        int parallelism = Integer.parseInt(given.getOrDefault("parallelism", "1"));

        Configuration settings = new Configuration();
        settings.setString("execution.checkpointing.dir", "file://" + given.get("checkpoints"));
        settings.setString("execution.checkpointing.interval", given.getOrDefault("interval-ms", "10000") + " ms");
        settings.setString("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
        settings.setString("pipeline.object-reuse", "true");
        if (given.containsKey("restore")) {
            settings.setString("execution.state-recovery.path", given.get("restore"));
        }
        StreamExecutionEnvironment job = StreamExecutionEnvironment.createLocalEnvironment(parallelism, settings);

        KafkaSourceBuilder<Tuple2<String, byte[]>> source =
                KafkaSource.<Tuple2<String, byte[]>>builder()
                        .setBootstrapServers(given.get("bootstrap"))
                        .setTopics(given.get("topic"))
                        .setGroupId(given.getOrDefault("group", "peer-flink"))
                        .setStartingOffsets(OffsetsInitializer.earliest())
                        .setValueOnlyDeserializer(new Records())
                        .setProperty("max.partition.fetch.bytes", "4194304")
                        .setProperty("max.poll.records", "5000");
        if (!given.containsKey("unbounded")) {
            source.setBounded(OffsetsInitializer.latest());
        }
        FileSink<Tuple2<String, byte[]>> sink =
                FileSink.forBulkFormat(
                                new Path("file://" + given.get("out")),
                                (BulkWriter.Factory<Tuple2<String, byte[]>>)
                                        file -> new Lines(file, codec, blockBytes))
                        .withBucketAssigner(new ByApp())
                        .withRollingPolicy(OnCheckpointRollingPolicy.build())
                        .withOutputFileConfig(OutputFileConfig.builder().withPartSuffix(suffix(codec)).build())
                        .build();

        DataStream<Tuple2<String, byte[]>> records =
                job.fromSource(source.build(), WatermarkStrategy.noWatermarks(), "topic").uid("topic");
        // One writer has all apps anyway; several would each make a file of an app.
        if (parallelism > 1) {
            records = records.keyBy(record -> record.f0);
        }
        records.sinkTo(sink).uid("files");
        job.execute("archive");
    }

    private ArchiveJob() {}
}
