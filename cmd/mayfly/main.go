// Command mayfly is the node plugin: `mayfly node` runs on every node, as a DaemonSet.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

const usage = `Mayfly gives every pod that asks for it a short-lived certificate, and rotates it.

Usage:
  mayfly node [flags]   run the node plugin; mayfly node -h lists its flags
  mayfly version        print the version
`

// The exit codes of the command.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

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
		_, err = fmt.Fprintln(stdout, version())
	case "help", "-h", "--help":
		_, err = io.WriteString(stdout, usage)
	case "":
		err = usageError{errors.New("a command is missing: mayfly node, mayfly version or mayfly help")}
	default:
		err = usageError{fmt.Errorf("unknown command %q: there are node, version and help", command)}
	}
	return exitCode(err, stderr)
}

// usageError is an error in the command line: one clear line and exit code 2.
type usageError struct{ error }

func exitCode(err error, stderr io.Writer) int {
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, new(usageError)):
		fmt.Fprintln(stderr, "mayfly:", err)
		return exitUsage
	}
	fmt.Fprintln(stderr, "mayfly:", err)
	return exitError
}

// version is that of the module, as the go command stamps it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(devel)"
	}
	return info.Main.Version
}
