import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;

import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A job whose state can be checked. All it keeps follows from the numbers it has read, so a job that was
 * restored can say what it got back and whether that is what a checkpoint held.
 *
 * <pre>  source, two lanes of numbers  ->  Ballast: operator state  ->  keyBy  ->  Ledger: keyed state</pre>
 *
 * <p>Every key meets its numbers of a lane in order and without gaps. A number that is missing or comes twice
 * after a restore shows that source positions and keyed state do not belong to the same checkpoint.
 *
 * <p>It reports by log lines of the form {@code PINNED-STATE EVENT name=value ...}: one line per operator and
 * subtask when it starts, and one per subtask of the ledger and checkpoint. job.go reads them.
 *
 * <p>Arguments, each with its default: {@code --keys 200}, {@code --blob-bytes 1000} (per key),
 * {@code --list-elements 2700} (8 bytes each, per subtask), {@code --pace-ms 2} (pause per number and lane).
 * The defaults put more than 20 KB into the state of each operator subtask: Flink writes less than that into
 * _metadata itself (state.storage.fs.memory-threshold, 20 KB by default), and a pin that needs no files proves nothing.
 *
 * <p>Only interfaces that are the same in Flink 1.13 to 2.3 are used: no sink, no open(), no RuntimeContext.
 */
public class PinnedState {
    private static final Logger LOG = LoggerFactory.getLogger("PinnedState");
    private static final int LANES = 2;

    public static void main(String[] args) throws Exception {
        long keys = argument(args, "--keys", 200);
        long laneLength = keys << 32;
        Ballast ballast = new Ballast((int) argument(args, "--list-elements", 2700), argument(args, "--pace-ms", 2));
        Ledger ledger = new Ledger(keys, laneLength, (int) argument(args, "--blob-bytes", 1000));

        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        // Source and ballast keep their parallelism when the job is rescaled: it is what makes the lanes.
        env.fromSequence(0, LANES * laneLength - 1).setParallelism(LANES).uid("source")
                .map(ballast).setParallelism(LANES).uid("ballast")
                .keyBy(number -> number % keys)
                .process(ledger).uid("ledger");
        env.execute("pinned-state");
    }

    private static long argument(String[] args, String name, long otherwise) {
        int at = Arrays.asList(args).indexOf(name);
        return at < 0 ? otherwise : Long.parseLong(args[at + 1]);
    }

    /** Passes numbers on at a fixed pace and holds operator list state that says which checkpoint wrote it. */
    static class Ballast extends RichMapFunction<Long, Long> implements CheckpointedFunction {
        private final int elements;
        private final long paceMillis;
        private transient ListState<Long> list;

        Ballast(int elements, long paceMillis) {
            this.elements = elements;
            this.paceMillis = paceMillis;
        }

        @Override
        public Long map(Long number) throws Exception {
            Thread.sleep(paceMillis);
            return number;
        }

        @Override
        public void initializeState(FunctionInitializationContext context) throws Exception {
            list = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("ballast", Types.LONG));
            if (!context.isRestored()) {
                LOG.info("PINNED-STATE BALLAST-EMPTY");
                return;
            }
            Set<Long> writers = new TreeSet<>();
            long found = 0;
            for (long element : list.get()) {
                writers.add(element);
                found++;
            }
            LOG.info("PINNED-STATE BALLAST-RESTORED from={} elements={}", join(writers), found);
        }

        @Override
        public void snapshotState(FunctionSnapshotContext context) throws Exception {
            List<Long> values = new ArrayList<>(elements);
            for (int i = 0; i < elements; i++) {
                values.add(context.getCheckpointId());
            }
            list.update(values);
        }
    }

    /**
     * Counts the numbers of each key. The count is a value, the position in each lane a map, and a blob follows
     * from key and count, so the three can be checked against each other. A timer ticks for every key.
     *
     * <p>The tally of all keys goes into operator state twice: as list state, of which every subtask restores a
     * share and goes on counting, and as union state, which tells every subtask what all keys held together.
     * What the keys are then seen to hold (the found tally) has to add up to it.
     */
    static class Ledger extends KeyedProcessFunction<Long, Long, Void> implements CheckpointedFunction {
        private static final TypeInformation<Tuple4<Long, Long, Long, Long>> TALLY =
                Types.TUPLE(Types.LONG, Types.LONG, Types.LONG, Types.LONG);
        private static final long TICK_MILLIS = 1000;

        private final long keys;
        private final long laneLength;
        private final int blobBytes;

        private transient ValueState<Long> count;
        private transient ValueState<byte[]> blob;
        private transient MapState<Long, Long> positions;
        private transient ListState<Tuple4<Long, Long, Long, Long>> share;
        private transient ListState<Tuple4<Long, Long, Long, Long>> union;

        private transient Tally tally;
        private transient boolean restored;
        private transient Set<Long> inspected;
        private transient Set<Long> ticked;
        private transient Tally found;
        private transient long missing;
        private transient long badBlobs;
        private transient long badMaps;
        private transient long gaps;

        Ledger(long keys, long laneLength, int blobBytes) {
            this.keys = keys;
            this.laneLength = laneLength;
            this.blobBytes = blobBytes;
        }

        @Override
        public void processElement(Long number, Context context, Collector<Void> out) throws Exception {
            long key = context.getCurrentKey();
            inspect(key);

            long lane = number / laneLength;
            long position = (number % laneLength) / keys;
            Long before = positions.get(lane);
            if (position != (before == null ? 0 : before + 1)) {
                gaps++;
            }
            positions.put(lane, position);

            Long counted = count.value();
            if (counted == null) {
                counted = 0L;
                context.timerService().registerProcessingTimeTimer(
                        context.timerService().currentProcessingTime() + TICK_MILLIS);
            } else {
                tally.remove(key, counted);
            }
            tally.add(key, counted + 1);
            count.update(counted + 1);
            blob.update(blobOf(key, counted + 1));
        }

        /** Only a key's first number and its ticks set a timer: the first tick after a restore is a restored one. */
        @Override
        public void onTimer(long timestamp, OnTimerContext context, Collector<Void> out) throws Exception {
            inspect(context.getCurrentKey());
            if (restored) {
                ticked.add(context.getCurrentKey());
            }
            context.timerService().registerProcessingTimeTimer(
                    context.timerService().currentProcessingTime() + TICK_MILLIS);
        }

        /** Checks what a key holds when it is met for the first time after a restore. */
        private void inspect(long key) throws Exception {
            if (!restored || !inspected.add(key)) {
                return;
            }
            Long counted = count.value();
            if (counted == null) {
                missing++;
                return;
            }
            found.add(key, counted);
            if (!Arrays.equals(blob.value(), blobOf(key, counted))) {
                badBlobs++;
            }
            long read = 0;
            for (long position : positions.values()) {
                read += position + 1;
            }
            if (read != counted) {
                badMaps++;
            }
        }

        private byte[] blobOf(long key, long counted) {
            byte[] bytes = new byte[blobBytes];
            new Random(Tally.mix(key, counted)).nextBytes(bytes);
            return bytes;
        }

        @Override
        public void initializeState(FunctionInitializationContext context) throws Exception {
            count = context.getKeyedStateStore().getState(new ValueStateDescriptor<>("count", Types.LONG));
            blob = context.getKeyedStateStore().getState(new ValueStateDescriptor<>("blob", byte[].class));
            positions = context.getKeyedStateStore().getMapState(
                    new MapStateDescriptor<>("positions", Types.LONG, Types.LONG));
            share = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("share", TALLY));
            union = context.getOperatorStateStore().getUnionListState(new ListStateDescriptor<>("union", TALLY));

            tally = new Tally();
            found = new Tally();
            inspected = new HashSet<>();
            ticked = new HashSet<>();
            restored = context.isRestored();
            if (!restored) {
                LOG.info("PINNED-STATE LEDGER-EMPTY");
                return;
            }
            for (Tuple4<Long, Long, Long, Long> entry : share.get()) {
                tally.addAll(entry);
            }
            Tally expected = new Tally();
            Set<Long> writers = new TreeSet<>();
            for (Tuple4<Long, Long, Long, Long> entry : union.get()) {
                expected.addAll(entry);
                writers.add(entry.f0);
            }
            LOG.info("PINNED-STATE LEDGER-RESTORED from={} {}", join(writers), expected.describe(""));
        }

        @Override
        public void snapshotState(FunctionSnapshotContext context) throws Exception {
            List<Tuple4<Long, Long, Long, Long>> entry = List.of(
                    Tuple4.of(context.getCheckpointId(), tally.keys, tally.numbers, tally.digest));
            share.update(entry);
            union.update(entry);
            LOG.info("PINNED-STATE CHECKPOINT id={} {} {} missing={} badBlobs={} badMaps={} gaps={} timers={}",
                    context.getCheckpointId(), tally.describe(""), found.describe("found."),
                    missing, badBlobs, badMaps, gaps, ticked.size());
        }
    }

    /**
     * What a set of keys holds. Tallies add up across subtasks, wherever the keys are and in whatever order they
     * are counted: the digest is a sum, modulo 2^64, of one hash per key and count.
     */
    static class Tally {
        long keys;
        long numbers;
        long digest;

        void add(long key, long counted) {
            keys++;
            numbers += counted;
            digest += mix(key, counted);
        }

        void remove(long key, long counted) {
            keys--;
            numbers -= counted;
            digest -= mix(key, counted);
        }

        void addAll(Tuple4<Long, Long, Long, Long> entry) {
            keys += entry.f1;
            numbers += entry.f2;
            digest += entry.f3;
        }

        String describe(String prefix) {
            return String.format("%1$skeys=%2$d %1$snumbers=%3$d %1$sdigest=%4$016x", prefix, keys, numbers, digest);
        }

        /** Spreads two small numbers over 64 bits, so that errors in two keys do not cancel out in a sum. */
        static long mix(long key, long counted) {
            long bits = (key << 40) ^ counted;
            bits = (bits ^ (bits >>> 33)) * 0x9e3779b97f4a7c15L;
            bits = (bits ^ (bits >>> 29)) * 0xd1b54a32d192ed03L;
            return bits ^ (bits >>> 32);
        }
    }

    private static String join(Set<Long> ids) {
        return ids.stream().map(String::valueOf).collect(Collectors.joining(","));
    }
}
