package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

type installCommand struct {
	Dir string `arg:"" type:"existingdir" help:"Folder to copy this program into."`
}

// Run copies the program itself: its image holds nothing else that could, and an
// init container shares it with a Flink container this way.
func (c *installCommand) Run(_ context.Context, env *environment) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	in, err := os.Open(self)
	if err != nil {
		return err
	}
	defer in.Close()
	target := filepath.Join(c.Dir, "chkpin")
	if err := writeFile(target, 0o755, func(w io.Writer) error { _, err := io.Copy(w, in); return err }); err != nil {
		return err
	}
	result := struct {
		Path string `json:"path"`
	}{target}
	return env.print(result, func(w io.Writer) { fmt.Fprintf(w, "installed %s\n", target) })
}

// writeFile makes a file that others see whole or not at all.
func writeFile(name string, mode os.FileMode, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".chkpin-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	defer os.Remove(f.Name()) // gone by then, unless something failed
	err = errors.Join(write(f), f.Chmod(mode), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return nil
}
