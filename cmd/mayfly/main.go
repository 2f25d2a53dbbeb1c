// Command mayfly is the node plugin: `mayfly node` runs on every node, as a DaemonSet.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/mayfly-csi/mayfly/cmd/flags"
)

const usage = `Mayfly gives every pod that asks for it a short-lived certificate, and rotates it.

Usage:
  mayfly node [flags]   run the node plugin; mayfly node -h lists its flags
  mayfly version        print the version
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the command: it returns its exit code.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	command := ""
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	var err error
	switch command {
	case "node":
		err = node(ctx, args, getenv, stdout, stderr)
	case "version":
		_, err = fmt.Fprintln(stdout, flags.Version())
	case "help", "-h", "--help":
		_, err = io.WriteString(stdout, usage)
	case "":
		err = flags.Error{Err: errors.New("a command is missing: mayfly node, mayfly version or mayfly help")}
	default:
		err = flags.Error{Err: fmt.Errorf("unknown command %q: there are node, version and help", command)}
	}
	return flags.ExitCode("mayfly", err, stderr)
}
