import java.io.File;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Comparator;
import java.util.List;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import org.apache.flink.api.common.functions.RichMapFunction;
import org.apache.flink.api.common.state.BroadcastState;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.state.FunctionInitializationContext;
import org.apache.flink.runtime.state.FunctionSnapshotContext;
import org.apache.flink.streaming.api.checkpoint.CheckpointedFunction;
import org.apache.flink.streaming.api.datastream.SingleOutputStreamOperator;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;

/**
 * Runs a small job in the local cluster of whatever Flink is on the class path, and keeps the _metadata of one of its
 * checkpoints or savepoints. See README.md.
 *
 * <pre>java LocalJob FOLDER checkpoint|canonical|native|stop [key=value of Flink's configuration] ...</pre>
 *
 * What is no key of Flink: {@code checkpoint=4} (the checkpoint to wait for), {@code slow=20} (milliseconds for each
 * number, for back pressure) and {@code finish=true} (adds a pipeline that finishes and one of which half does).
 */
public final class LocalJob {
    private static final Path APP = Paths.get("/tmp/app");

    public static void main(String[] args) throws Exception {
        Path folder = Paths.get(args[0]);
        Configuration conf = new Configuration();
        conf.setString("state.checkpoints.dir", "file://" + APP + "/checkpoints");
        conf.setString("state.checkpoints.num-retained", "1000");
        conf.setString("execution.checkpointing.externalized-checkpoint-retention", "RETAIN_ON_CANCELLATION");
        conf.setString("rest.port", "0");
        conf.setString("rest.bind-port", "0");
        conf.setString("taskmanager.memory.network.min", "32m");
        conf.setString("taskmanager.memory.network.max", "32m");
        conf.setString("taskmanager.memory.managed.size", "64m");
        for (int i = 2; i < args.length; i++) {
            String[] pair = args[i].split("=", 2);
            conf.setString(pair[0], pair[1]);
        }
        StreamExecutionEnvironment env = StreamExecutionEnvironment.createLocalEnvironment(2, conf);
        env.setMaxParallelism(8); // few key groups, short lists of their offsets
        env.enableCheckpointing(500);
        if (hasMethod(env, "configure")) { // since 1.10
            Reflect.call(env, "configure", conf, LocalJob.class.getClassLoader());
        }
        stateful(env, conf.getString("slow", "0"));
        if (conf.getString("finish", "").equals("true")) {
            finishing(env);
        }

        Object client = execute(env);
        Path metadata = checkpoint(Integer.parseInt(conf.getString("checkpoint", "4")));
        if (!args[1].equals("checkpoint")) {
            metadata = savepoint(client, args[1]).resolve("_metadata");
        }
        Files.createDirectories(folder);
        Files.copy(metadata, folder.resolve("_metadata"), StandardCopyOption.REPLACE_EXISTING);
        System.out.println(metadata + " " + Files.size(metadata));
        Runtime.getRuntime().halt(0);
    }

    private static boolean hasMethod(Object target, String name) {
        return Stream.of(target.getClass().getMethods()).anyMatch(m -> m.getName().equals(name));
    }

    /** Starts the job; its client came with 1.10. */
    private static Object execute(StreamExecutionEnvironment env) throws Exception {
        if (hasMethod(env, "executeAsync")) {
            return Reflect.call(env, "executeAsync", "job");
        }
        new Thread(() -> {
            try {
                env.execute("job");
            } catch (Exception e) {
                e.printStackTrace();
                Runtime.getRuntime().halt(1);
            }
        }).start();
        return null;
    }

    /** Waits for a checkpoint, and returns its _metadata or that of a later one. */
    private static Path checkpoint(int atLeast) throws Exception {
        while (true) {
            Thread.sleep(200);
            if (!Files.isDirectory(APP.resolve("checkpoints"))) {
                continue;
            }
            List<Path> found;
            try (Stream<Path> files = Files.walk(APP.resolve("checkpoints"), 3)) {
                found = files.filter(f -> f.endsWith("_metadata")).collect(Collectors.toList());
            }
            Optional<Path> latest = found.stream().max(Comparator.comparingInt(LocalJob::number));
            if (latest.isPresent() && number(latest.get()) >= atLeast) {
                return latest.get();
            }
        }
    }

    private static int number(Path metadata) {
        return Integer.parseInt(metadata.getParent().getFileName().toString().substring("chk-".length()));
    }

    /** Savepoints have a format since 1.15; before, all of them are canonical. */
    private static Path savepoint(Object client, String form) throws Exception {
        String folder = "file://" + APP + "/savepoints";
        List<Object> args = new ArrayList<>(Collections.singletonList(folder));
        String method = "triggerSavepoint";
        if (form.equals("stop")) {
            method = "stopWithSavepoint";
            args.add(0, false); // no drain
        }
        if (Reflect.exists("core.execution.SavepointFormatType")) {
            args.add(Reflect.constant("core.execution.SavepointFormatType", form.equals("native") ? "NATIVE" : "CANONICAL"));
        }
        CompletableFuture<?> done = (CompletableFuture<?>) Reflect.call(client, method, args.toArray());
        return Paths.get(new java.net.URI((String) done.get()).getPath());
    }

    // ---- The job

    private static SingleOutputStreamOperator<Long> numbers(StreamExecutionEnvironment env, long last) throws Exception {
        Object source = hasMethod(env, "fromSequence") // since 1.12
                ? Reflect.call(env, "fromSequence", 0L, last)
                : Reflect.call(env, "addSource", Class.forName("OldNumbers").getConstructor().newInstance());
        return (SingleOutputStreamOperator<Long>) source;
    }

    private static void stateful(StreamExecutionEnvironment env, String slow) throws Exception {
        numbers(env, Long.MAX_VALUE / 4).uid("source")
                .map(new Lists(slow.equals("0") ? 1 : 0)).name("lists").uid("lists")
                .keyBy(number -> number % 16)
                .process(new Counts(Integer.parseInt(slow))).name("counts").uid("counts");
    }

    /** One pipeline that ends at once, and one of which one of two subtasks does within seconds. */
    private static void finishing(StreamExecutionEnvironment env) throws Exception {
        numbers(env, 9).map(number -> number).name("short").uid("short");
        numbers(env, 399).map(number -> {
            Thread.sleep(number < 200 ? 5 : 500);
            return number;
        }).name("half").uid("half");
    }

    /** Passes numbers on and holds operator state: a list, a union list and a broadcast map. */
    private static final class Lists extends RichMapFunction<Long, Long> implements CheckpointedFunction {
        private final long pause;
        private transient ListState<Long> list;
        private transient ListState<Long> union;
        private transient BroadcastState<Long, Long> broadcast;

        Lists(long pause) {
            this.pause = pause;
        }

        @Override
        public Long map(Long number) throws Exception {
            if (pause > 0) {
                Thread.sleep(pause);
            }
            return number;
        }

        @Override
        public void initializeState(FunctionInitializationContext context) throws Exception {
            list = context.getOperatorStateStore().getListState(new ListStateDescriptor<>("list", Types.LONG));
            union = context.getOperatorStateStore().getUnionListState(new ListStateDescriptor<>("union", Types.LONG));
            broadcast = context.getOperatorStateStore().getBroadcastState(
                    new MapStateDescriptor<>("broadcast", Types.LONG, Types.LONG));
        }

        @Override
        public void snapshotState(FunctionSnapshotContext context) throws Exception {
            list.clear();
            union.clear();
            for (long i = 0; i < 3; i++) {
                list.add(i);
                union.add(i);
                broadcast.put(i, context.getCheckpointId());
            }
        }
    }

    /** Counts the numbers of each key, in a value and in a map, and sets a timer. */
    private static final class Counts extends KeyedProcessFunction<Long, Long, Void> implements CheckpointedFunction {
        private final long pause;
        private transient ValueState<Long> count;
        private transient MapState<Long, Long> counts;

        Counts(long pause) {
            this.pause = pause;
        }

        @Override
        public void processElement(Long number, Context context, Collector<Void> out) throws Exception {
            if (pause > 0) {
                Thread.sleep(pause);
            }
            if (count.value() == null) {
                context.timerService().registerProcessingTimeTimer(Long.MAX_VALUE - 1);
            }
            count.update(count.value() == null ? 1L : count.value() + 1);
            counts.put(number % 3, number);
        }

        @Override
        public void initializeState(FunctionInitializationContext context) throws Exception {
            count = context.getKeyedStateStore().getState(new ValueStateDescriptor<>("count", Types.LONG));
            counts = context.getKeyedStateStore().getMapState(new MapStateDescriptor<>("counts", Types.LONG, Types.LONG));
        }

        @Override
        public void snapshotState(FunctionSnapshotContext context) {}
    }
}
