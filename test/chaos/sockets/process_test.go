package sockets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/signer/local"
)

const (
	name            = "csi.mayfly.dev"
	rootVariable    = "MAYFLY_SOCKETS_ROOT"
	versionVariable = "MAYFLY_SOCKETS_VERSION"
	begun           = "the process has begun" // Before that a signal to stop it would kill it.
)

// endpoint is the path of the CSI socket under a kubelet's root.
func endpoint(root string) string { return filepath.Join(root, "plugins", name, "csi.sock") }

// registrationSocket is the path of the registration socket.
func registrationSocket(root string) string {
	return filepath.Join(root, "plugins_registry", name+"-reg.sock")
}

// stateDir is the directory of the volumes' tmpfs.
func stateDir(root string) string { return filepath.Join(root, "plugins", name, "volumes") }

// authority is the directory of the CA that all node plugins of a root share.
func authority(root string) string { return filepath.Join(root, "ca") }

// serve is a node plugin until it is told to stop or its parent is gone. It returns the status of the process.
func serve(root, version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	fmt.Fprintln(os.Stderr, begun)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // It ends with the parent.
		stop()
	}()
	err := runDriver(ctx, root, version)
	stop()
	if ours := goleak.IgnoreAnyFunction("io.Copy"); err == nil {
		err = goleak.Find(ours, goleak.IgnoreAnyFunction("os/signal.loop"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the process ends:", err)
		return 1
	}
	return 0
}

func runDriver(ctx context.Context, root, version string) error {
	ca, err := local.Open(authority(root))
	if err != nil {
		return err
	}
	d, err := driver.New(driver.Config{
		Names: []driver.Name{{Name: name, Endpoint: endpoint(root)}}, Version: version, NodeName: "node-a",
		KubeletRoot: root, StateDir: stateDir(root), Signer: ca, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}

// A process is a node plugin.
type process struct {
	version string
	command *exec.Cmd
	stdin   io.Closer
	log     string        // The path of its log.
	done    chan struct{} // Closed when it has ended.
	err     error         // With which it ended.
	files   int           // How many descriptors it had when it first served.
}

// start starts a node plugin. It serves once no other one does. After an error it may run.
func (w *world) start() (*process, error) {
	w.versions++
	p := &process{version: fmt.Sprint("v", w.versions), done: make(chan struct{})}
	p.log = filepath.Join(w.Root, p.version+".log")
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.command = exec.Command(os.Args[0])
	p.command.Env = append(os.Environ(), rootVariable+"="+w.Root, versionVariable+"="+p.version, "GORACE=halt_on_error=1")
	p.command.Stderr = log
	if p.stdin, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.command.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.done)
		p.err = p.command.Wait()
	}()
	return p, w.until(p.version, func() error {
		if !p.logged(begun) {
			return errors.New("it does not begin")
		}
		return nil
	})
}

// end sends a signal and waits for the end. A process that is told to stop must end well.
func (p *process) end(sig syscall.Signal) error {
	err := p.command.Process.Signal(sig)
	<-p.done
	if sig != syscall.SIGKILL {
		err = errors.Join(err, p.err)
	}
	_ = p.stdin.Close()
	if err == nil && p.logged("DATA RACE") {
		err = errors.New("a data race")
	}
	if err != nil {
		return fmt.Errorf("%s ended: %w", p.version, err)
	}
	return nil
}

// logged reports whether a text is in the log.
func (p *process) logged(text string) bool {
	log, err := os.ReadFile(p.log)
	return err == nil && strings.Contains(string(log), text)
}

// descriptors returns how many files the process has open.
func (p *process) descriptors() (int, error) {
	all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.command.Process.Pid))
	return len(all), err
}
