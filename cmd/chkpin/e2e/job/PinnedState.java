import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.locks.LockSupport;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;

import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.AggregateFunction;
import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.state.AggregatingState;
import org.apache.flink.api.common.state.AggregatingStateDescriptor;
import org.apache.flink.api.common.state.BroadcastState;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ReducingState;
import org.apache.flink.api.common.state.ReducingStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple4;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.TimeDomain;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A job whose state can be checked. All it keeps follows from the numbers it has read, so a job that was
 * restored can say what it got back and whether that is what a checkpoint held.
 *
 * <pre>
 *   source, two lanes of numbers  ->  Ballast: operator state  ->  keyBy  ->  Ledger: keyed and operator state
 *   source  ->  Brief     with --finishing: both subtasks finish at once
 *   source  ->  Uneven    with --finishing: one subtask finishes at once, the other goes on for an hour
 * </pre>
 *
 * <p>Every key meets its numbers of a lane in order and without gaps. A number that is missing or comes twice
 * after a restore shows that source positions, keyed state and data in flight do not belong to the same checkpoint.
 *
 * <p>It reports by log lines of the form {@code PINNED-STATE EVENT name=value ...}: one line per operator and
 * subtask when it starts, and one per subtask of the ledger and checkpoint. job.go reads them.
 *
 * <p>Arguments, each with its default: {@code --keys 200}, {@code --blob-bytes 1000} (per key),
 * {@code --list-elements 2700} (8 bytes each, per subtask), {@code --broadcast-entries 1500} (16 bytes each),
 * {@code --pace-ms 2} (pause of the source per number and lane), {@code --slow-micros 0} (pause of the ledger per number
 * and subtask), {@code --finishing 0} (1: with the branches that finish).
 * The defaults put more than 20 KB into the state of each operator subtask: Flink writes less than that into
 * _metadata itself (state.storage.fs.memory-threshold, 20 KB by default), and a pin that needs no files proves nothing.
 * A ledger that is slower than the source fills the buffers between them, which unaligned checkpoints then hold.
 *
 * <p>Only interfaces that are the same in Flink 1.13 to 2.3 are used: no sink, no open(), no RuntimeContext.
 */
public class PinnedState {
    private static final Logger LOG = LoggerFactory.getLogger("PinnedState");
    private static final int LANES = 2;
    private static final int BRIEF_NUMBERS = 10;

    public static void main(String[] args) throws Exception {
        long keys = argument(args, "--keys", 200);
        long laneLength = keys << 32;
        Ballast ballast = new Ballast(laneLength, (int) argument(args, "--list-elements", 2700), argument(args, "--pace-ms", 2));
        Ledger ledger = new Ledger(keys, laneLength, (int) argument(args, "--blob-bytes", 1000),
                argument(args, "--broadcast-entries", 1500), argument(args, "--slow-micros", 0));

        StreamExecutionEnvironment env = StreamExecutionEnvironment.getExecutionEnvironment();
        env.setMaxParallelism(128); // the same at every parallelism: keyed state is not restored into another one
        // All but the ledger keep their parallelism when the job is rescaled: it is what makes the lanes.
        env.fromSequence(0, LANES * laneLength - 1).setParallelism(LANES).uid("source")
                .map(ballast).setParallelism(LANES).uid("ballast")
                .assignTimestampsAndWatermarks(WatermarkStrategy.<Long>forMonotonousTimestamps()
                        .withTimestampAssigner((number, before) -> number % laneLength)).setParallelism(LANES).uid("time")
                .keyBy(number -> number % keys)
                .process(ledger).uid("ledger");
        if (argument(args, "--finishing", 0) != 0) {
            env.fromSequence(1, BRIEF_NUMBERS).setParallelism(LANES).uid("brief-source")
                    .map(new Brief()).setParallelism(LANES).uid("brief");
            env.fromSequence(0, LANES * Uneven.HALF - 1).setParallelism(LANES).uid("uneven-source")
                    .map(new Uneven()).setParallelism(LANES).uid("uneven");
        }
        env.execute("pinned-state");
    }

    private static long argument(String[] args, String name, long otherwise) {
        int at = Arrays.asList(args).indexOf(name);
        return at < 0 ? otherwise : Long.parseLong(args[at + 1]);
    }

    /**
     * Passes numbers on at a fixed pace and holds operator list state that says which checkpoint wrote it. It also
     * says where the source went on in each lane: what lies between there and what the ledger holds was in flight.
     */
    static class Ballast extends RichMapFunction<Long, Long> implements CheckpointedFunction {
        private final long laneLength;
        private final int elements;
        private final long paceMillis;
        private transient ListState<Long> list;
        private transient Set<Long> lanes;

        Ballast(long laneLength, int elements, long paceMillis) {
            this.laneLength = laneLength;
            this.elements = elements;
            this.paceMillis = paceMillis;
        }

        @Override
        public Long map(Long number) throws Exception {
            if (lanes.add(number / laneLength)) {
                LOG.info("PINNED-STATE BALLAST-FIRST lane={} read={}", number / laneLength, number % laneLength);
            }
            Thread.sleep(paceMillis);
            return number;
        }

        @Override
        public void initializeState(FunctionInitializationContext context) throws Exception {
            lanes = new HashSet<>();
            list = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("ballast", Types.LONG));
            if (!context.isRestored()) {
                LOG.info("PINNED-STATE BALLAST-EMPTY {}", subtask());
                return;
            }
            Set<Long> writers = new TreeSet<>();
            long found = 0;
            for (long element : list.get()) {
                writers.add(element);
                found++;
            }
            LOG.info("PINNED-STATE BALLAST-RESTORED {} from={} elements={}", subtask(), join(writers), found);
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
     * Counts the numbers of each key. The count is a value, the position in each lane a map; a blob, a list, a sum and
     * a sum of squares follow from key and count, so that all can be checked against each other. Another blob is
     * written when a key is met for the first time and never again: the files of RocksDB that hold it are not
     * compacted away, so that checkpoints share them for as long as the job lives. For every key a
     * timer ticks in processing time and another one in event time, which is the position in the lanes.
     *
     * <p>The tally of all keys goes into operator state twice: as list state, of which every subtask restores a
     * share and goes on counting, and as union state, which tells every subtask what all keys held together.
     * What the keys are then seen to hold (the found tally) has to add up to it. Broadcast state, of which every
     * subtask restores the whole, says which checkpoint wrote it.
     */
    static class Ledger extends KeyedProcessFunction<Long, Long, Void> implements CheckpointedFunction {
        private static final TypeInformation<Tuple4<Long, Long, Long, Long>> TALLY =
                Types.TUPLE(Types.LONG, Types.LONG, Types.LONG, Types.LONG);
        private static final long TICK_MILLIS = 1000;
        private static final int RECENT = 5;

        private final long keys;
        private final long laneLength;
        private final int blobBytes;
        private final long broadcastEntries;
        private final long slowMicros;

        private transient ValueState<Long> count;
        private transient ValueState<byte[]> blob;
        private transient ValueState<byte[]> origin;
        private transient MapState<Long, Long> positions;
        private transient ListState<Long> recent;
        private transient ReducingState<Long> sum;
        private transient AggregatingState<Long, Long> squares;
        private transient ListState<Tuple4<Long, Long, Long, Long>> share;
        private transient ListState<Tuple4<Long, Long, Long, Long>> union;
        private transient BroadcastState<Long, Long> broadcast;

        private transient Tally tally;
        private transient boolean restored;
        private transient Set<Long> inspected;
        private transient Set<Long> ticked;
        private transient Set<Long> tickedInEventTime;
        private transient Tally found;
        private transient long missing;
        private transient long badBlobs;
        private transient long badOrigins;
        private transient long badMaps;
        private transient long badLists;
        private transient long badSums;
        private transient long gaps;
        private transient long[] read;

        Ledger(long keys, long laneLength, int blobBytes, long broadcastEntries, long slowMicros) {
            this.keys = keys;
            this.laneLength = laneLength;
            this.blobBytes = blobBytes;
            this.broadcastEntries = broadcastEntries;
            this.slowMicros = slowMicros;
        }

        @Override
        public void processElement(Long number, Context context, Collector<Void> out) throws Exception {
            long key = context.getCurrentKey();
            inspect(key);
            if (slowMicros > 0) {
                LockSupport.parkNanos(slowMicros * 1000);
            }

            long lane = number / laneLength;
            long position = (number % laneLength) / keys;
            Long before = positions.get(lane);
            if (position != (before == null ? 0 : before + 1)) {
                gaps++;
            }
            positions.put(lane, position);
            read[(int) lane] = number % laneLength + 1;

            Long counted = count.value();
            if (counted == null) {
                counted = 0L;
                origin.update(blobOf(key, 0));
                context.timerService().registerProcessingTimeTimer(
                        context.timerService().currentProcessingTime() + TICK_MILLIS);
                context.timerService().registerEventTimeTimer(context.timestamp() + keys);
            } else {
                tally.remove(key, counted);
            }
            counted++;
            tally.add(key, counted);
            count.update(counted);
            blob.update(blobOf(key, counted));
            if (counted % RECENT == 0) {
                recent.clear();
            }
            recent.add(counted);
            sum.add(counted);
            squares.add(counted);
        }

        /** Only a key's first number and its ticks set timers: the first tick after a restore is a restored one. */
        @Override
        public void onTimer(long timestamp, OnTimerContext context, Collector<Void> out) throws Exception {
            inspect(context.getCurrentKey());
            boolean eventTime = context.timeDomain() == TimeDomain.EVENT_TIME;
            if (restored) {
                (eventTime ? tickedInEventTime : ticked).add(context.getCurrentKey());
            }
            if (!eventTime) {
                context.timerService().registerProcessingTimeTimer(
                        context.timerService().currentProcessingTime() + TICK_MILLIS);
            } else if (context.timerService().currentWatermark() < Long.MAX_VALUE) { // else a job that is drained ticks for ever
                context.timerService().registerEventTimeTimer(timestamp + keys);
            }
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
            if (!Arrays.equals(origin.value(), blobOf(key, 0))) {
                badOrigins++;
            }
            long numbers = 0;
            for (long position : positions.values()) {
                numbers += position + 1;
            }
            if (numbers != counted) {
                badMaps++;
            }
            List<Long> counts = new ArrayList<>();
            recent.get().forEach(counts::add);
            if (!counts.equals(recentOf(counted))) {
                badLists++;
            }
            // Reducing and aggregating state of a key that holds nothing is null.
            if (!Long.valueOf(counted * (counted + 1) / 2).equals(sum.get())
                    || !Long.valueOf(counted * (counted + 1) * (2 * counted + 1) / 6).equals(squares.get())) {
                badSums++;
            }
        }

        private static List<Long> recentOf(long counted) {
            List<Long> counts = new ArrayList<>();
            for (long c = Math.max(1, counted - counted % RECENT); c <= counted; c++) {
                counts.add(c);
            }
            return counts;
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
            origin = context.getKeyedStateStore().getState(new ValueStateDescriptor<>("origin", byte[].class));
            positions = context.getKeyedStateStore().getMapState(
                    new MapStateDescriptor<>("positions", Types.LONG, Types.LONG));
            recent = context.getKeyedStateStore().getListState(new ListStateDescriptor<>("recent", Types.LONG));
            sum = context.getKeyedStateStore().getReducingState(
                    new ReducingStateDescriptor<>("sum", Long::sum, Types.LONG));
            squares = context.getKeyedStateStore().getAggregatingState(
                    new AggregatingStateDescriptor<>("squares", new Squares(), Types.LONG));
            share = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("share", TALLY));
            union = context.getOperatorStateStore().getUnionListState(new ListStateDescriptor<>("union", TALLY));
            broadcast = context.getOperatorStateStore().getBroadcastState(
                    new MapStateDescriptor<>("broadcast", Types.LONG, Types.LONG));

            tally = new Tally();
            found = new Tally();
            inspected = new HashSet<>();
            ticked = new HashSet<>();
            tickedInEventTime = new HashSet<>();
            read = new long[LANES];
            restored = context.isRestored();
            if (!restored) {
                LOG.info("PINNED-STATE LEDGER-EMPTY {}", subtask());
                return;
            }
            for (Tuple4<Long, Long, Long, Long> entry : share.get()) {
                tally.addAll(entry);
            }
            Tally all = new Tally();
            Set<Long> writers = new TreeSet<>();
            for (Tuple4<Long, Long, Long, Long> entry : union.get()) {
                all.addAll(entry);
                writers.add(entry.f0);
            }
            long entries = 0;
            for (Map.Entry<Long, Long> entry : broadcast.immutableEntries()) {
                writers.add(entry.getValue());
                entries++;
            }
            LOG.info("PINNED-STATE LEDGER-RESTORED {} from={} {} {} broadcast={}", subtask(), join(writers),
                    tally.describe("share."), all.describe("union."), entries);
        }

        @Override
        public void snapshotState(FunctionSnapshotContext context) throws Exception {
            List<Tuple4<Long, Long, Long, Long>> entry = List.of(
                    Tuple4.of(context.getCheckpointId(), tally.keys, tally.numbers, tally.digest));
            share.update(entry);
            union.update(entry);
            for (long key = 0; key < broadcastEntries; key++) {
                broadcast.put(key, context.getCheckpointId());
            }
            LOG.info("PINNED-STATE CHECKPOINT id={} {} {} missing={} badBlobs={} badOrigins={} badMaps={}"
                            + " badLists={} badSums={} gaps={} timers={} eventTimers={} read0={} read1={}",
                    context.getCheckpointId(), tally.describe(""), found.describe("found."),
                    missing, badBlobs, badOrigins, badMaps, badLists, badSums,
                    gaps, ticked.size(), tickedInEventTime.size(), read[0], read[1]);
        }
    }

    /** Adds up the squares of what it gets. */
    static class Squares implements AggregateFunction<Long, Long, Long> {
        @Override
        public Long createAccumulator() {
            return 0L;
        }

        @Override
        public Long add(Long value, Long squares) {
            return squares + value * value;
        }

        @Override
        public Long getResult(Long squares) {
            return squares;
        }

        @Override
        public Long merge(Long one, Long other) {
            return one + other;
        }
    }

    /** Logs whatever it does: once it has finished, a restored job is not to run it again. */
    static class Brief extends RichMapFunction<Long, Long> implements CheckpointedFunction {
        private transient ListState<Long> list;

        @Override
        public Long map(Long number) {
            LOG.info("PINNED-STATE BRIEF-NUMBER number={}", number);
            return number;
        }

        @Override
        public void initializeState(FunctionInitializationContext context) throws Exception {
            list = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("brief", Types.LONG));
            LOG.info("PINNED-STATE BRIEF-{} {}", context.isRestored() ? "RESTORED" : "EMPTY", subtask());
        }

        @Override
        public void snapshotState(FunctionSnapshotContext context) throws Exception {
            list.update(List.of(context.getCheckpointId()));
        }
    }

    /**
     * The source splits its numbers into two halves. One is read at once, and the subtask that has read it finishes;
     * the other one takes more than an hour. A restored job starts both subtasks again and is to read nothing of the
     * first half, and the second where the checkpoint was.
     *
     * <p>There is no union state here: an operator that has some and is partly finished stops all checkpoints.
     */
    static class Uneven extends RichMapFunction<Long, Long> implements CheckpointedFunction {
        static final long HALF = 1 << 18;
        private static final long PACE_MILLIS = 20;

        private transient ListState<Tuple2<Long, Long>> list;
        private transient boolean restored;
        private transient long next; // of the second half, 0 where that is not this subtask's
        private transient long numbers;
        private transient long again;
        private transient long gaps;

        @Override
        public Long map(Long number) throws Exception {
            if (number < HALF) {
                again += restored ? 1 : 0;
                return number;
            }
            Thread.sleep(PACE_MILLIS);
            if (number != (restored || next != 0 ? next : HALF)) {
                gaps++;
            }
            next = number + 1;
            numbers++;
            return number;
        }

        @Override
        public void initializeState(FunctionInitializationContext context) throws Exception {
            list = context.getOperatorStateStore().getListState(
                    new ListStateDescriptor<>("uneven", Types.TUPLE(Types.LONG, Types.LONG)));
            restored = context.isRestored();
            if (!restored) {
                LOG.info("PINNED-STATE UNEVEN-EMPTY {}", subtask());
                return;
            }
            Set<Long> writers = new TreeSet<>();
            for (Tuple2<Long, Long> entry : list.get()) {
                writers.add(entry.f0);
                next = entry.f1;
            }
            LOG.info("PINNED-STATE UNEVEN-RESTORED {} from={}", subtask(), join(writers));
        }

        @Override
        public void snapshotState(FunctionSnapshotContext context) throws Exception {
            list.update(next == 0 ? List.of() : List.of(Tuple2.of(context.getCheckpointId(), next)));
            LOG.info("PINNED-STATE UNEVEN-CHECKPOINT {} numbers={} again={} gaps={}", subtask(), numbers, again, gaps);
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

    private static final Pattern THREAD = Pattern.compile(".*\\((\\d+)/(\\d+)\\)#(\\d+)");

    /**
     * Says which subtask this is, from the name of its thread, "Ledger (1/2)#0": the methods of RuntimeContext that
     * tell it are others in Flink 2.
     */
    private static String subtask() {
        String thread = Thread.currentThread().getName();
        Matcher name = THREAD.matcher(thread);
        if (!name.matches()) {
            throw new IllegalStateException("not the thread of a subtask: " + thread);
        }
        return String.format("subtask=%s parallelism=%s attempt=%s", name.group(1), name.group(2), name.group(3));
    }

    private static String join(Set<Long> ids) {
        return ids.isEmpty() ? "none" : ids.stream().map(String::valueOf).collect(Collectors.joining(","));
    }
}
