import java.lang.reflect.Constructor;
import java.lang.reflect.Executable;
import java.lang.reflect.Method;
import java.util.Arrays;

/** Reaches what not every release of Flink has, or has in the same form. */
final class Reflect {
    private Reflect() {}

    static Class<?> type(String name) {
        try {
            return Class.forName("org.apache.flink." + name);
        } catch (ClassNotFoundException e) {
            throw new IllegalStateException(e);
        }
    }

    static boolean exists(String name) {
        try {
            Class.forName("org.apache.flink." + name);
            return true;
        } catch (ClassNotFoundException e) {
            return false;
        }
    }

    static Object constant(String name, String constant) {
        return Arrays.stream(type(name).getEnumConstants())
                .filter(c -> ((Enum<?>) c).name().equals(constant)).findFirst().get();
    }

    /** Makes an object with the constructor that takes these arguments. */
    static Object make(String name, Object... args) {
        for (Constructor<?> constructor : type(name).getDeclaredConstructors()) {
            if (takes(constructor, args)) {
                constructor.setAccessible(true);
                try {
                    return constructor.newInstance(args);
                } catch (ReflectiveOperationException e) {
                    throw new IllegalStateException(e);
                }
            }
        }
        throw new IllegalStateException("no constructor of " + name + " takes " + Arrays.toString(args));
    }

    /** Calls the method of an object, or the static one of a class, that takes these arguments. */
    static Object call(Object target, String name, Object... args) {
        Class<?> type = target instanceof Class ? (Class<?>) target : target.getClass();
        for (Method method : type.getMethods()) {
            if (method.getName().equals(name) && takes(method, args)) {
                method.setAccessible(true);
                try {
                    return method.invoke(target, args);
                } catch (ReflectiveOperationException e) {
                    throw new IllegalStateException(e);
                }
            }
        }
        throw new IllegalStateException("no method " + name + " of " + type + " takes " + Arrays.toString(args));
    }

    private static boolean takes(Executable executable, Object[] args) {
        Class<?>[] parameters = executable.getParameterTypes();
        if (parameters.length != args.length) {
            return false;
        }
        for (int i = 0; i < args.length; i++) {
            Class<?> parameter = parameters[i];
            if (parameter == int.class) {
                parameter = Integer.class;
            } else if (parameter == long.class) {
                parameter = Long.class;
            } else if (parameter == boolean.class) {
                parameter = Boolean.class;
            }
            if (!parameter.isInstance(args[i])) {
                return false;
            }
        }
        return true;
    }
}
