// Command mayfly-controller is what a cluster has once: `mayfly-controller run` decides on the requests of the node plugins.
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

const usage = `Mayfly's controller approves the certificate requests that match the pod for which a node plugin asks.

Usage:
  mayfly-controller run [flags]   run the controller; mayfly-controller run -h lists its flags
  mayfly-controller version       print the version
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
	case "run":
		err = control(ctx, args, getenv, stdout, stderr)
	case "version":
		_, err = fmt.Fprintln(stdout, flags.Version())
	case "help", "-h", "--help":
		_, err = io.WriteString(stdout, usage)
	case "":
		err = flags.Error{Err: errors.New("a command is missing: mayfly-controller run, mayfly-controller version or mayfly-controller help")}
	default:
		err = flags.Error{Err: fmt.Errorf("unknown command %q: there are run, version and help", command)}
	}
	return flags.ExitCode("mayfly-controller", err, stderr)
}
