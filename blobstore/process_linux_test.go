package blobstore_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/chkpin/chkpin/blobstore"
)

// The test binary is also the other process: with this variable it runs one of
// roles in the folder that is its only argument.
const roleVariable = "CHKPIN_TEST_ROLE"

var roles = map[string]func(store *blobstore.File, dir blobstore.URI) error{
	"put on condition": putOnCondition,
	"replace for ever": replaceForEver,
	"stop in a Put":    stopInAPut,
}

func TestMain(m *testing.M) {
	role, ok := os.LookupEnv(roleVariable)
	if !ok {
		os.Exit(m.Run())
	}
	role, noLinks := strings.CutSuffix(role, " without links")
	if err := roles[role](&blobstore.File{NoLinks: noLinks}, blobstore.MustParse(os.Args[1])); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// process is this test binary in a role.
type process struct {
	*exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func start(t *testing.T, role string, store *blobstore.File, dir blobstore.URI) process {
	t.Helper()
	if store.NoLinks {
		role += " without links"
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, dir.String())
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	return process{cmd, in, bufio.NewScanner(out)}
}

func (p process) say(t *testing.T, line string) {
	t.Helper()
	_, err := fmt.Fprintln(p.in, line)
	require.NoError(t, err)
}

func (p process) hear(t *testing.T) string {
	t.Helper()
	require.True(t, p.out.Scan(), "the process ended early: %v", p.out.Err())
	return p.out.Text()
}

// kill ends the process as the kernel does when memory is short.
func (p process) kill(t *testing.T) {
	t.Helper()
	require.NoError(t, p.Process.Kill())
	require.ErrorContains(t, p.Wait(), "killed")
}

// putOnCondition puts what it is told to, a line "name tag" each: without a tag
// if the object is absent. It says how that went.
func putOnCondition(store *blobstore.File, dir blobstore.URI) error {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		name, tag, _ := strings.Cut(lines.Text(), " ")
		body := strings.NewReader(fmt.Sprintf("by process %d", os.Getpid()))
		opts := blobstore.PutOptions{IfTag: tag, IfAbsent: tag == ""}
		_, err := store.Put(context.Background(), dir.Join(name), body, opts)
		switch {
		case err == nil:
			fmt.Println("won")
		case errors.Is(err, blobstore.ErrPrecondition):
			fmt.Println("lost")
		default:
			return err
		}
	}
	return nil
}

func TestFileConditionsHoldAcrossProcesses(t *testing.T) {
	for name, store := range map[string]*blobstore.File{"with links": {}, "without links": {NoLinks: true}} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			competitors := []process{
				start(t, "put on condition", store, dir),
				start(t, "put on condition", store, dir),
				start(t, "put on condition", store, dir),
			}
			compete := func(object, tag string) {
				t.Helper()
				for _, p := range competitors {
					p.say(t, object+" "+tag)
				}
				winner := ""
				for _, p := range competitors {
					if p.hear(t) == "won" {
						assert.Empty(t, winner, "a second winner")
						winner = fmt.Sprintf("by process %d", p.Process.Pid)
					}
				}
				assert.Equal(t, winner, read(t, store, dir.Join(object)))
			}
			var want []string
			for i := range 30 {
				object := fmt.Sprintf("object-%02d", i)
				compete(object, "")
				compete(object, put(t, store, dir.Join(object), "before").Tag)
				want = append(want, object)
			}
			assert.Equal(t, want, names(t, store, dir))
			for _, p := range competitors {
				require.NoError(t, p.in.Close())
				require.NoError(t, p.Wait())
			}
		})
	}
}

// stopInAPut stops in the midst of a Put until somebody ends it.
func stopInAPut(store *blobstore.File, dir blobstore.URI) error {
	half := strings.NewReader(strings.Repeat("half", 100_000))
	body := io.MultiReader(half, stopped{})
	_, err := store.Put(context.Background(), dir.Join("object"), body, blobstore.PutOptions{})
	return err
}

type stopped struct{}

func (stopped) Read([]byte) (int, error) {
	fmt.Println("half written")
	_, err := io.ReadAll(os.Stdin) // which nobody closes
	return 0, errors.Join(errors.New("was not killed"), err)
}

// What a killed writer leaves shows in listings, as what it is, and harms
// neither the object nor later writers.
func TestFileKilledWriter(t *testing.T) {
	store, dir := blobstore.NewFile(), folder(t)
	put(t, store, dir.Join("object"), "old")
	p := start(t, "stop in a Put", store, dir)
	require.Equal(t, "half written", p.hear(t))
	p.kill(t)

	assert.Equal(t, "old", read(t, store, dir.Join("object")))
	found := names(t, store, dir)
	require.Len(t, found, 2)
	assert.Regexp(t, `^\.chkpin-.*\.tmp$`, found[0])
	left := dir.Join(found[0])
	assert.True(t, blobstore.IsTemporary(left))
	assert.False(t, blobstore.IsTemporary(dir.Join("object")))

	put(t, store, dir.Join("object"), "new")
	assert.Equal(t, "new", read(t, store, dir.Join("object")))
	require.NoError(t, store.Delete(t.Context(), left))
	assert.Equal(t, []string{"object"}, names(t, store, dir))
}

// replaceForEver puts and copies versions of an object, one after the other.
func replaceForEver(store *blobstore.File, dir blobstore.URI) error {
	ctx := context.Background()
	obj, err := store.Stat(ctx, dir.Join("object"))
	for i := 0; err == nil; i++ {
		fmt.Println(i)
		body := strings.Repeat(fmt.Sprintln(i), 10_000)
		if i%2 == 0 {
			obj, err = store.Put(ctx, obj.URI, strings.NewReader(body), blobstore.PutOptions{IfTag: obj.Tag})
			continue
		}
		if _, err = store.Put(ctx, dir.Join("source"), strings.NewReader(body), blobstore.PutOptions{}); err == nil {
			obj, err = store.Copy(ctx, obj.URI, dir.Join("source"))
		}
	}
	return err
}

// Wherever a writer is killed, the object is a whole one, and no lock stays.
func TestFileWriterKilledAnywhere(t *testing.T) {
	for name, store := range map[string]*blobstore.File{"with links": {}, "without links": {NoLinks: true}} {
		t.Run(name, func(t *testing.T) {
			dir := folder(t)
			object := put(t, store, dir.Join("object"), strings.Repeat("first\n", 10_000)).URI
			for round := range 10 {
				p := start(t, "replace for ever", store, dir)
				for range 1 + round {
					p.hear(t)
				}
				p.kill(t)

				content := read(t, store, object)
				line, _, _ := strings.Cut(content, "\n")
				require.True(t, content == strings.Repeat(line+"\n", 10_000), "%d bytes of version %q", len(content), line)
				_, err := store.Put(t.Context(), object, strings.NewReader(content), blobstore.PutOptions{IfAbsent: true})
				require.ErrorIs(t, err, blobstore.ErrPrecondition)
			}
			for _, name := range names(t, store, dir) {
				u := dir.Join(name)
				assert.True(t, name == "object" || name == "source" || blobstore.IsTemporary(u), "%s", u)
			}
		})
	}
}
