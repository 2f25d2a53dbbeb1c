package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// Main runs a command with the process's arguments until it ends or is interrupted, and ends the process if it fails.
func Main(name string, run func(ctx context.Context, args []string) error) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, name+":", err)
		os.Exit(1)
	}
}

// BorrowNamespace borrows a cluster as [Borrow] does, with a namespace made by [Cluster.Namespace]. giveBack deletes the
// namespace, too.
func BorrowNamespace(
	ctx context.Context, dir, namespace string, tell func(format string, args ...any),
) (*Cluster, func() error, error) {
	c, giveBack, err := Borrow(ctx, dir, tell)
	if err != nil {
		return nil, nil, err
	}
	if _, err := c.Namespace(ctx, namespace); err != nil {
		return nil, nil, errors.Join(err, giveBack())
	}
	return c, func() error {
		_, err := c.Kubectl(context.WithoutCancel(ctx), "delete", "namespace", namespace)
		return errors.Join(err, giveBack())
	}, nil
}
