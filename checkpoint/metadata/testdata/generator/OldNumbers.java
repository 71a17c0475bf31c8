import org.apache.flink.streaming.api.functions.source.RichParallelSourceFunction;

/** Numbers without end, for releases before 1.12: their own source of numbers keeps all of them in its state. */
public final class OldNumbers extends RichParallelSourceFunction<Long> {
    private volatile boolean running = true;

    @Override
    public void run(SourceContext<Long> context) {
        for (long number = 0; running; number++) {
            synchronized (context.getCheckpointLock()) {
                context.collect(number);
            }
        }
    }

    @Override
    public void cancel() {
        running = false;
    }
}
