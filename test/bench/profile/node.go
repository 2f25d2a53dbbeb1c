package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// node is the node plugin, which does what it is told by lines of stdin, and answers each by a line on stdout.
func node(ctx context.Context, root string) error {
	signer, err := local.Open(filepath.Join(root, "ca"))
	if err != nil {
		return err
	}
	n := &nodePlugin{config: driver.Config{
		Names:   []driver.Name{{Name: spec.Driver, Endpoint: filepath.Join(root, "plugins", spec.Driver, "csi.sock")}},
		Version: "profile", NodeName: "profile", KubeletRoot: root,
		StateDir: filepath.Join(root, "plugins", spec.Driver, "volumes"),
		Signer:   signer, Defaults: volume.Defaults{Defaults: spec.Defaults{IssuerName: "local"}}, RenewalsPerSecond: 1000,
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	}}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer := "ok"
		if err := n.do(ctx, lines.Text()); err != nil {
			answer = err.Error()
		}
		fmt.Println(strings.ReplaceAll(answer, "\n", "; "))
	}
	return errors.Join(lines.Err(), n.stop())
}

type nodePlugin struct {
	config driver.Config
	cancel context.CancelFunc // nil: it does not run.
	ended  chan error
	end    func() error // Of a recording.
}

func (n *nodePlugin) do(ctx context.Context, line string) (err error) {
	command, prefix, _ := strings.Cut(line, " ")
	switch command {
	case "start":
		return n.start(ctx)
	case "stop":
		return n.stop()
	case "cpu":
		n.end, err = recordCPU(prefix)
	case "rest":
		n.end, err = recordRest(prefix)
	case "end":
		err = n.end()
	default:
		err = fmt.Errorf("unknown command %q", line)
	}
	return err
}

func (n *nodePlugin) start(ctx context.Context) error {
	d, err := driver.New(n.config)
	if err != nil {
		return err
	}
	ctx, n.cancel = context.WithCancel(ctx)
	n.ended = make(chan error, 1)
	go func() { n.ended <- d.Run(ctx) }()
	return nil
}

func (n *nodePlugin) stop() error {
	if n.cancel == nil {
		return nil
	}
	n.cancel()
	n.cancel = nil
	return <-n.ended
}
