// Command control-plane runs a control plane until its standard input ends, for benchmarks: it makes the namespace `bench` with
// an issuer `ca`, and prints the path of the kubeconfig.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/mayfly-csi/mayfly/test/cluster"
)

func main() {
	dir := flag.String("dir", "", "directory for data and logs")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, *dir)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "control-plane:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, dir string) (err error) {
	if dir == "" {
		return errors.New("--dir is required")
	}
	c, err := cluster.Start(ctx, dir, func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	if _, err := c.Namespace(ctx, "bench"); err != nil {
		return err
	}
	fmt.Println(c.Kubeconfig())
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	select {
	case <-closed:
	case <-ctx.Done():
	}
	return nil
}
