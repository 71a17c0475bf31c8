//go:build !linux

package volumes

import (
	"fmt"
	"os"
)

// Main ends the program: only Linux has what it needs.
func Main() {
	fmt.Fprintln(os.Stderr, "volume: needs Linux")
	os.Exit(2)
}
