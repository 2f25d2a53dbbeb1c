package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sync/errgroup"

	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const volumes, atOnce = 1000, 50

// A scenario is what the node plugin does while it is recorded.
type scenario struct {
	name    string
	prepare func(ctx context.Context, p *plugin) error           // Before; nil: nothing.
	work    func(ctx context.Context, p *plugin, pass int) error // Twice: for the CPU, and for the rest.
}

func scenarios() []scenario {
	publish := func(ctx context.Context, p *plugin) error { return p.publish(ctx, "held", "1h") }
	return []scenario{{
		name: "publish",
		work: func(ctx context.Context, p *plugin, pass int) error {
			return p.publish(ctx, fmt.Sprint("pass-", pass), "1h")
		},
	}, {
		name: "republish", prepare: publish,
		work: func(ctx context.Context, p *plugin, _ int) error {
			for range 10 {
				if err := publish(ctx, p); err != nil {
					return err
				}
			}
			return nil
		},
	}, {
		name:    "renewal",
		prepare: func(ctx context.Context, p *plugin) error { return p.publish(ctx, "held", "10s") },
		work:    func(ctx context.Context, _ *plugin, _ int) error { return wait(ctx, 15*time.Second) },
	}, {
		name: "restart", prepare: publish,
		work: func(ctx context.Context, p *plugin, _ int) error {
			for range 8 {
				// The rest of a restart comes after it has registered.
				if err := errors.Join(p.tell("stop"), p.start(ctx), wait(ctx, time.Second)); err != nil {
					return err
				}
			}
			return nil
		},
	}}
}

// profile records the scenario.
func (s scenario) profile(ctx context.Context, dir, prefix string) (err error) {
	p, err := startPlugin(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	if s.prepare != nil {
		if err := s.prepare(ctx, p); err != nil {
			return err
		}
	}
	for pass, kind := range []string{"cpu", "rest"} {
		if err := p.tell(kind + " " + prefix); err != nil {
			return err
		}
		if err := errors.Join(s.work(ctx, p, pass), p.tell("end")); err != nil {
			return err
		}
	}
	return p.unpublish(ctx)
}

// A plugin is the node plugin in its process, and the kubelet that calls it.
type plugin struct {
	*kubelet.Kubelet
	kubelet.Driver
	process   *exec.Cmd
	in        io.WriteCloser
	out       *bufio.Scanner
	published map[string]kubelet.Volume // By their ids.
}

func startPlugin(ctx context.Context, root string) (*plugin, error) {
	k, err := kubelet.New(root)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &plugin{Kubelet: k, published: map[string]kubelet.Volume{}}
	p.process = exec.CommandContext(ctx, self, "--node="+root)
	p.process.Stderr = os.Stderr
	out, err := p.process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewScanner(out)
	if p.in, err = p.process.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.process.Start(); err != nil {
		return nil, fmt.Errorf("start the node plugin: %w", err)
	}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.end())
	}
	return p, nil
}

// start starts the driver in the process, and registers it.
func (p *plugin) start(ctx context.Context) error {
	if err := p.tell("start"); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	d, err := p.Register(ctx, spec.Driver)
	if err != nil {
		return err
	}
	p.Driver = kubelet.DialEachCall(filepath.Join(p.Root, "plugins", spec.Driver, "csi.sock"))
	return d.Close()
}

// tell has the process do something.
func (p *plugin) tell(command string) error {
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		return fmt.Errorf("tell the node plugin to %s: %w", command, err)
	}
	if !p.out.Scan() {
		return fmt.Errorf("the node plugin has ended: %w", errors.Join(p.out.Err(), io.ErrUnexpectedEOF))
	}
	if answer := p.out.Text(); answer != "ok" {
		return fmt.Errorf("%s: %s", command, answer)
	}
	return nil
}

func (p *plugin) end() error { return errors.Join(p.in.Close(), p.process.Wait()) }

// publish publishes volumes whose certificates live for as long as duration says.
func (p *plugin) publish(ctx context.Context, name, duration string) error {
	var all []kubelet.Volume
	for i := range volumes {
		pod := fmt.Sprint(name, "-", i)
		v := kubelet.Volume{Pod: kubelet.Pod{Namespace: "profile", Name: pod, UID: pod, ServiceAccount: "default"}}
		v.Attributes = map[string]string{
			spec.Prefix + "dns-names": "${POD_NAME}.${POD_NAMESPACE}.svc", spec.Prefix + "duration": duration,
		}
		all = append(all, v)
		p.published[v.ID()] = v
	}
	return each(all, func(v kubelet.Volume) error {
		_, err := p.Publish(ctx, p.Driver, v)
		return err
	})
}

func (p *plugin) unpublish(ctx context.Context) error {
	var all []kubelet.Volume
	for _, v := range p.published {
		all = append(all, v)
	}
	return each(all, func(v kubelet.Volume) error {
		_, err := p.NodeUnpublishVolume(ctx, &csi.NodeUnpublishVolumeRequest{VolumeId: v.ID(), TargetPath: p.Target(v)})
		return err
	})
}

// each calls f for all volumes, some at once.
func each(all []kubelet.Volume, f func(kubelet.Volume) error) error {
	var group errgroup.Group
	group.SetLimit(atOnce)
	for _, v := range all {
		group.Go(func() error { return f(v) })
	}
	return group.Wait()
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
