import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.File;
import java.io.FileOutputStream;
import java.io.OutputStream;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;

import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.core.fs.Path;
import org.apache.flink.runtime.checkpoint.MasterState;
import org.apache.flink.runtime.checkpoint.OperatorState;
import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.checkpoint.StateObjectCollection;
import org.apache.flink.runtime.jobgraph.OperatorID;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.KeyGroupRangeOffsets;
import org.apache.flink.runtime.state.KeyedStateHandle;
import org.apache.flink.runtime.state.OperatorStateHandle;
import org.apache.flink.runtime.state.OperatorStreamStateHandle;
import org.apache.flink.runtime.state.StateObject;
import org.apache.flink.runtime.state.StreamStateHandle;
import org.apache.flink.runtime.state.filesystem.FileStateHandle;
import org.apache.flink.runtime.state.memory.ByteStreamStateHandle;
import org.apache.flink.runtime.util.EnvironmentInformation;

/**
 * Writes _metadata files with the serializers of whatever Flink is on the class path: one that holds everything this
 * release can write, and reads such files and writes them again. See README.md.
 */
public final class Specimens {
    private static final String JOB = "file:/tmp/app/checkpoints/0123456789abcdef0123456789abcdef/";
    private static final KeyGroupRange RANGE = KeyGroupRange.of(2, 3);

    /** The release as one number: 1.13 is 113, 2.0 is 200. */
    private static final int RELEASE = release(EnvironmentInformation.getVersion());

    private int files;

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "write":
                store(new Specimens().everything(false), args[1]);
                break;
            case "write-changelog":
                store(new Specimens().everything(true), args[1]);
                break;
            case "again":
                for (int i = 1; i < args.length; i += 2) {
                    store(load(args[i]), args[i + 1]);
                }
                break;
            default:
                throw new IllegalArgumentException(args[0]);
        }
    }

    private static int release(String version) {
        String[] parts = version.split("\\.");
        return Integer.parseInt(parts[0]) * 100 + Integer.parseInt(parts[1]);
    }

    // ---- Flink's own reader and writer

    private static void store(Object metadata, String file) throws Exception {
        try (OutputStream out = new FileOutputStream(file)) {
            Class<?> checkpoints = Reflect.type("runtime.checkpoint.Checkpoints");
            Arrays.stream(checkpoints.getMethods())
                    .filter(m -> m.getName().equals("storeCheckpointMetadata"))
                    .filter(m -> m.getParameterCount() == 2 && m.getParameterTypes()[1] == OutputStream.class)
                    .findFirst().get()
                    .invoke(null, metadata, out);
        }
    }

    private static Object load(String file) throws Exception {
        DataInputStream in = new DataInputStream(new ByteArrayInputStream(Files.readAllBytes(new File(file).toPath())));
        ClassLoader loader = Specimens.class.getClassLoader();
        Class<?> checkpoints = Reflect.type("runtime.checkpoint.Checkpoints");
        if (RELEASE < 111) {
            return Reflect.call(checkpoints, "loadCheckpointMetadata", in, loader);
        }
        // Relative handles are resolved against the folder of the file.
        String pointer = new File(file).getAbsoluteFile().getParentFile().toURI().toString();
        return Reflect.call(checkpoints, "loadCheckpointMetadata", in, loader, pointer);
    }

    // ---- What is in a file

    /** A checkpoint with every form of handle in every place; changelogs, which came with 1.14, only on demand. */
    private Object everything(boolean changelog) {
        List<OperatorState> operators = new ArrayList<>();
        operators.add(changelog ? changelogs() : keyed());
        if (!changelog) {
            operators.add(listed());
            if (RELEASE >= 111) {
                operators.add(inFlight());
                operators.add(coordinated());
            }
        }
        if (RELEASE >= 114) {
            operators.add(partlyFinished());
            operators.add((OperatorState) operator("runtime.checkpoint.FullyFinishedOperatorState", "finished"));
        }
        Collection<MasterState> masters = Arrays.asList(
                new MasterState("hook", new byte[] {7, 8, 9}, 1), new MasterState("", new byte[0], 2));
        if (RELEASE < 111) {
            return Reflect.make("runtime.checkpoint.savepoint.SavepointV2", 42L, operators, masters);
        }
        if (RELEASE < 116) {
            return Reflect.make("runtime.checkpoint.metadata.CheckpointMetadata", 42L, operators, masters);
        }
        Object properties = Reflect.call(Reflect.type("runtime.checkpoint.CheckpointProperties"), "forCheckpoint",
                Reflect.constant("runtime.checkpoint.CheckpointRetentionPolicy", "RETAIN_ON_CANCELLATION"));
        return Reflect.make("runtime.checkpoint.metadata.CheckpointMetadata", 42L, operators, masters, properties);
    }

    /** Keyed state of every kind over every form of stream. */
    private OperatorState keyed() {
        List<Subtask> subtasks = new ArrayList<>();
        for (Form form : forms()) {
            subtasks.add(new Subtask().managedKeyed(keyGroups(form)).rawKeyed(keyGroups(form)));
            subtasks.add(new Subtask().managedKeyed(incremental(form)));
            if (RELEASE >= 113) {
                subtasks.add(new Subtask().managedKeyed((KeyedStateHandle)
                        Reflect.make("runtime.state.KeyGroupsSavepointStateHandle", offsets(), stream(form))));
            }
        }
        return operator("keyed", subtasks);
    }

    /** Operator state, split, union and broadcast, over every form of stream. */
    private OperatorState listed() {
        List<Subtask> subtasks = new ArrayList<>();
        for (Form form : forms()) {
            subtasks.add(new Subtask().managedOperator(operatorState(form)).rawOperator(operatorState(form)));
        }
        return operator("listed", subtasks);
    }

    private OperatorState inFlight() {
        List<Subtask> subtasks = new ArrayList<>();
        for (Form form : forms()) {
            int index = subtasks.size();
            subtasks.add(new Subtask()
                    .channels(
                            channel("InputChannelStateHandle", "InputChannelInfo", index, form),
                            channel("ResultSubpartitionStateHandle", "ResultSubpartitionInfo", index, form)));
        }
        return operator("in flight", subtasks);
    }

    /** State of an operator coordinator, as of a source, and of no subtask. */
    private OperatorState coordinated() {
        OperatorState operator = operator("coordinated", Collections.emptyList());
        Reflect.call(operator, "setCoordinatorState", stream(Form.INLINE));
        return operator;
    }

    /** Of two subtasks the second has finished. */
    private OperatorState partlyFinished() {
        OperatorState operator = operator("partly finished",
                Collections.singletonList(new Subtask().managedKeyed(keyGroups(Form.FILE))));
        try {
            operator.putState(1, (OperatorSubtaskState)
                    Reflect.type("runtime.checkpoint.FinishedOperatorSubtaskState").getField("INSTANCE").get(null));
        } catch (ReflectiveOperationException e) {
            throw new IllegalStateException(e);
        }
        return operator;
    }

    private OperatorState changelogs() {
        List<Subtask> subtasks = new ArrayList<>();
        for (Form form : forms()) {
            subtasks.add(new Subtask().managedKeyed(changelog(
                    Arrays.asList(keyGroups(form), incremental(form)),
                    Arrays.asList(changesInFiles(form), changesInMemory()))));
        }
        subtasks.add(new Subtask().managedKeyed(changelog(Collections.emptyList(), Collections.emptyList())));
        return operator("changelog", subtasks);
    }

    // ---- Handles. Maps are those that Flink's reader makes: their order is that of the file.

    private enum Form { INLINE, FILE, UNKNOWN_SIZE, RELATIVE, KEY_GROUPS }

    private static List<Form> forms() {
        List<Form> forms = new ArrayList<>(Arrays.asList(Form.INLINE, Form.FILE, Form.UNKNOWN_SIZE));
        if (RELEASE >= 111) {
            forms.add(Form.RELATIVE);
        }
        if (RELEASE >= 113) {
            forms.add(Form.KEY_GROUPS);
        }
        return forms;
    }

    private StreamStateHandle stream(Form form) {
        int n = ++files;
        switch (form) {
            case INLINE:
                return new ByteStreamStateHandle(JOB + "chk-42/" + n, new byte[] {1, 2, 3});
            case FILE:
                return new FileStateHandle(new Path(JOB + "shared/" + n), 1000 + n);
            case UNKNOWN_SIZE: // and a name of one, two, three and four bytes a character
                return new FileStateHandle(new Path(JOB + "shared/é-€-😀-" + n), -1);
            case RELATIVE:
                return (StreamStateHandle) Reflect.make("runtime.state.filesystem.RelativeFileStateHandle",
                        new Path(JOB + "chk-42/" + n), "" + n, 1000L + n);
            default:
                return (StreamStateHandle) keyGroups(Form.FILE);
        }
    }

    private static KeyGroupRangeOffsets offsets() {
        return new KeyGroupRangeOffsets(RANGE, new long[] {0, 100});
    }

    private KeyedStateHandle keyGroups(Form form) {
        if (RELEASE < 115) {
            return (KeyedStateHandle) Reflect.make("runtime.state.KeyGroupsStateHandle", offsets(), stream(form));
        }
        return (KeyedStateHandle) Reflect.call(Reflect.type("runtime.state.KeyGroupsStateHandle"), "restore",
                offsets(), stream(form), id());
    }

    private KeyedStateHandle incremental(Form form) {
        UUID backend = new UUID(0x0123456789abcdefL, 0x8000000000000000L + ++files);
        Object shared = files(form, "000011.sst", "000012.sst");
        Object own = files(form, "OPTIONS-000010");
        String name = "runtime.state.IncrementalRemoteKeyedStateHandle";
        if (RELEASE < 115) {
            return (KeyedStateHandle) Reflect.make(name, backend, RANGE, 42L, shared, own, stream(form));
        }
        return (KeyedStateHandle) Reflect.call(Reflect.type(name), "restore",
                backend, RANGE, 42L, shared, own, stream(form), 1234L, id());
    }

    /** A map of files by their local names, a list since 1.16. */
    private Object files(Form form, String... names) {
        Map<Object, StreamStateHandle> map = new HashMap<>(names.length);
        List<Object> list = new ArrayList<>();
        for (String name : names) {
            StreamStateHandle stream = stream(form);
            if (RELEASE < 116) {
                map.put(Reflect.make("runtime.state.StateHandleID", name), stream);
            } else {
                list.add(Reflect.call(Reflect.type("runtime.state.IncrementalKeyedStateHandle$HandleAndLocalPath"),
                        "of", stream, name));
            }
        }
        return RELEASE < 116 ? map : list;
    }

    private KeyedStateHandle changelog(List<KeyedStateHandle> base, List<?> delta) {
        String name = "runtime.state.changelog.ChangelogStateBackendHandle$ChangelogStateBackendHandleImpl";
        if (RELEASE < 115) {
            return (KeyedStateHandle) Reflect.make(name, base, delta, RANGE);
        }
        if (RELEASE < 116) {
            return (KeyedStateHandle) Reflect.call(Reflect.type(name), "restore", base, delta, RANGE, 3L, 1234L, id());
        }
        return (KeyedStateHandle) Reflect.call(Reflect.type(name), "restore", base, delta, RANGE, 3L, 42L, 1234L, id());
    }

    private Object changesInFiles(Form form) {
        List<Tuple2<StreamStateHandle, Long>> streams =
                Arrays.asList(Tuple2.of(stream(form), 0L), Tuple2.of(stream(form), 50L));
        String name = "runtime.state.changelog.ChangelogStateHandleStreamImpl";
        if (RELEASE < 115) {
            return Reflect.make(name, streams, RANGE, 90L);
        }
        if (RELEASE < 116) {
            return Reflect.call(Reflect.type(name), "restore", streams, RANGE, 90L, 90L, id());
        }
        return Reflect.call(Reflect.type(name), "restore", streams, RANGE, 90L, 90L, "filesystem", id());
    }

    private Object changesInMemory() {
        String change = "runtime.state.changelog.StateChange";
        Object metadata = RELEASE < 117
                ? Reflect.make(change, -1, new byte[] {1})
                : Reflect.call(Reflect.type(change), "ofMetadataChange", (Object) new byte[] {1});
        Object data = RELEASE < 117
                ? Reflect.make(change, 2, new byte[] {2, 3})
                : Reflect.call(Reflect.type(change), "ofDataChange", 2, new byte[] {2, 3});
        List<Object> changes = Arrays.asList(metadata, data);
        Class<?> number = Reflect.type("runtime.state.changelog.SequenceNumber");
        Object from = Reflect.call(number, "of", 5L);
        Object to = Reflect.call(number, "of", 7L);
        String name = "runtime.state.changelog.inmemory.InMemoryChangelogStateHandle";
        if (RELEASE < 115) {
            return Reflect.make(name, changes, from, to, RANGE);
        }
        return Reflect.call(Reflect.type(name), "restore", changes, from, to, RANGE, id());
    }

    /** Flink gives every handle a random id since 1.15; here they are numbered. */
    private Object id() {
        return Reflect.make("runtime.state.StateHandleID", "handle-" + ++files);
    }

    private OperatorStateHandle operatorState(Form form) {
        Map<String, OperatorStateHandle.StateMetaInfo> states = new HashMap<>(OperatorStateHandle.Mode.values().length);
        for (OperatorStateHandle.Mode mode : OperatorStateHandle.Mode.values()) {
            states.put("state-" + mode, new OperatorStateHandle.StateMetaInfo(new long[] {0, 8}, mode));
        }
        return new OperatorStreamStateHandle(states, stream(form));
    }

    private StateObject channel(String handle, String info, int subtask, Form form) {
        Object channel = Reflect.make("runtime.checkpoint.channel." + info, 1, 2);
        List<Long> offsets = Arrays.asList(0L, 15L);
        handle = "runtime.state." + handle;
        if (RELEASE < 112) {
            return (StateObject) Reflect.make(handle, channel, stream(form), offsets, 30L);
        }
        return (StateObject) Reflect.make(handle, subtask, channel, stream(form), offsets, 30L);
    }

    // ---- Operators and subtasks

    private OperatorState operator(String name, List<Subtask> subtasks) {
        OperatorState operator = (OperatorState) operator("runtime.checkpoint.OperatorState", name);
        for (int i = 0; i < subtasks.size(); i++) {
            operator.putState(i, subtasks.get(i).state());
        }
        return operator;
    }

    private static Object operator(String type, String name) {
        OperatorID id = new OperatorID(0x0123456789abcdefL, name.hashCode());
        if (RELEASE < 200) {
            return Reflect.make(type, id, 100, 128);
        }
        return Reflect.make(type, name, "uid of " + name, id, 100, 128);
    }

    /** The state of a subtask, whose class had constructors until 1.11 and has a builder since 1.12. */
    private static final class Subtask {
        private StateObjectCollection<?> managedOperator = StateObjectCollection.empty();
        private StateObjectCollection<?> rawOperator = StateObjectCollection.empty();
        private StateObjectCollection<?> managedKeyed = StateObjectCollection.empty();
        private StateObjectCollection<?> rawKeyed = StateObjectCollection.empty();
        private StateObjectCollection<?> inputs = StateObjectCollection.empty();
        private StateObjectCollection<?> outputs = StateObjectCollection.empty();

        Subtask managedOperator(OperatorStateHandle handle) {
            managedOperator = one(handle);
            return this;
        }

        Subtask rawOperator(OperatorStateHandle handle) {
            rawOperator = one(handle);
            return this;
        }

        Subtask managedKeyed(KeyedStateHandle handle) {
            managedKeyed = one(handle);
            return this;
        }

        Subtask rawKeyed(KeyedStateHandle handle) {
            rawKeyed = one(handle);
            return this;
        }

        Subtask channels(StateObject input, StateObject output) {
            inputs = one(input);
            outputs = one(output);
            return this;
        }

        private static <T extends StateObject> StateObjectCollection<T> one(T handle) {
            return new StateObjectCollection<>(Collections.singletonList(handle));
        }

        OperatorSubtaskState state() {
            String name = "runtime.checkpoint.OperatorSubtaskState";
            if (RELEASE < 111) {
                return (OperatorSubtaskState) Reflect.make(name, managedOperator, rawOperator, managedKeyed, rawKeyed);
            }
            if (RELEASE < 112) {
                return (OperatorSubtaskState)
                        Reflect.make(name, managedOperator, rawOperator, managedKeyed, rawKeyed, inputs, outputs);
            }
            Object builder = Reflect.call(Reflect.type(name), "builder");
            Reflect.call(builder, "setManagedOperatorState", managedOperator);
            Reflect.call(builder, "setRawOperatorState", rawOperator);
            Reflect.call(builder, "setManagedKeyedState", managedKeyed);
            Reflect.call(builder, "setRawKeyedState", rawKeyed);
            Reflect.call(builder, "setInputChannelState", inputs);
            Reflect.call(builder, "setResultSubpartitionState", outputs);
            return (OperatorSubtaskState) Reflect.call(builder, "build");
        }
    }
}
