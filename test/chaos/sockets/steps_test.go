package sockets

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// The attribute of a certificate's lifetime, and two lifetimes. Certificates of the long one are not renewed here.
const (
	duration = name + "/duration"
	short    = "4s"
	long     = "1h"
)

// A step is something that happens. It is drawn as often as its weight says.
type step struct {
	name   string
	weight int
	do     func(w *world) error
}

// steps are all steps.
func steps() []step {
	return []step{
		{"a pod comes", 6, (*world).comes},
		{"publish again", 2, (*world).again},
		{"a pod goes", 3, (*world).goes},
		{"certificates are renewed", 2, (*world).renewals},
		{"a socket is hurt", 7, (*world).hurt},
		{"a directory of sockets is removed", 1, (*world).removeDirectory},
		{"another node plugin starts, or the other one ends", 5, (*world).second},
		{"restart", 2, (*world).restart},
		{"kill", 2, (*world).kill},
		{"kill during a call", 2, (*world).killInCall},
	}
}

// take takes a step.
func (w *world) take() error {
	all, total := steps(), 0
	for _, s := range all {
		total += s.weight
	}
	n := w.rand.IntN(total)
	i := slices.IndexFunc(all, func(s step) bool { n -= s.weight; return n < 0 })
	w.note("%s", all[i].name)
	if err := all[i].do(w); err != nil {
		return fmt.Errorf("%s: %w", all[i].name, err)
	}
	return nil
}

// pod makes a volume of another pod, with a certificate of seconds.
func (w *world) pod() kubelet.Volume {
	w.pods++
	return kubelet.Volume{
		Pod: kubelet.Pod{
			Namespace: "shop", Name: fmt.Sprint("web-", w.pods), ServiceAccount: "web",
			UID: fmt.Sprintf("3b2f6a5e-0001-4c5e-9d3e-%012d", w.pods),
		},
		Attributes: map[string]string{
			name + "/issuer-name": "ca", name + "/dns-names": host, name + "/layout": "pem,bundle",
			duration: []string{short, "8s", long}[w.rand.IntN(3)],
		},
	}
}

// publish publishes a volume, and demands at once that it has a pair.
func (w *world) publish(v kubelet.Volume) error {
	err := w.call("publish "+v.UID, func(ctx context.Context, d kubelet.Driver) error {
		_, err := w.Publish(ctx, d, v)
		return err
	})
	if err != nil {
		return err
	}
	return w.accepts(v)
}

func (w *world) comes() error {
	v := w.pod()
	w.published = append(w.published, v)
	return w.publish(v)
}

func (w *world) again() error {
	if len(w.published) == 0 {
		return w.comes()
	}
	return w.publish(w.published[w.rand.IntN(len(w.published))])
}

func (w *world) goes() error {
	if len(w.published) == 0 {
		return nil
	}
	i := w.rand.IntN(len(w.published))
	v := w.published[i]
	w.published = slices.Delete(w.published, i, i+1)
	w.gone = append(w.gone, v)
	return w.call("unpublish "+v.UID, func(ctx context.Context, d kubelet.Driver) error { return w.Unpublish(ctx, d, v) })
}

// renewals waits until each certificate of seconds is another one.
func (w *world) renewals() error {
	before := map[string]*x509.Certificate{}
	for _, v := range w.published {
		leaf, err := kubelet.Load(w.Target(v))
		if err != nil {
			return fmt.Errorf("%s has lost its pair: %w", v.UID, err)
		}
		if v.Attributes[duration] != long {
			before[v.UID] = leaf
		}
	}
	return w.until("renewals", func() error {
		for _, v := range w.published {
			leaf, err := kubelet.Load(w.Target(v))
			if err == nil && leaf.Equal(before[v.UID]) {
				err = errors.New("it has the certificate of before")
			}
			if err != nil {
				return fmt.Errorf("%s is not renewed: %w", v.UID, err)
			}
		}
		return nil
	})
}

// hurt removes or replaces one socket or both.
func (w *world) hurt() error {
	paths := [][]string{
		{endpoint(w.Root)}, {registrationSocket(w.Root)}, {endpoint(w.Root), registrationSocket(w.Root)},
	}[w.rand.IntN(3)]
	way := w.rand.IntN(5)
	for _, path := range paths {
		w.note("  %s %s", []string{"removed", "renamed", "a file", "a dead socket", "a directory"}[way], filepath.Base(path))
		if err := []func(string) error{os.Remove, rename, file, deadSocket, directory}[way](path); err != nil {
			return err
		}
	}
	return nil
}

func rename(path string) error {
	return os.Rename(path, filepath.Join(filepath.Dir(path), "..", "elsewhere"))
}

// file puts a file in the place of a socket.
func file(path string) error {
	return errors.Join(os.WriteFile(path+".aside", nil, 0o600), os.Rename(path+".aside", path))
}

// deadSocket puts a socket in place on which another process has answered.
func deadSocket(path string) error {
	l, err := net.Listen("unix", path+".aside")
	if err != nil {
		return err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	return errors.Join(os.Rename(path+".aside", path), l.Close())
}

// directory puts a directory in place, which can't be replaced, for some time.
func directory(path string) error {
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o750)); err != nil {
		return err
	}
	time.Sleep(1500 * time.Millisecond) // The node plugin tries once a second.
	return os.RemoveAll(path)
}

// removeDirectory removes the directory of the registration sockets, as a reset of the node does.
func (w *world) removeDirectory() error {
	dir := filepath.Dir(registrationSocket(w.Root))
	return errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o750))
}

// second starts another node plugin beside the first, or ends the first, so that the other one serves; or the other one.
func (w *world) second() (err error) {
	if w.next == nil {
		w.next, err = w.start()
		return err
	}
	if w.rand.IntN(3) == 0 {
		w.note("  %s ends, which waited", w.next.version)
		p := w.next
		w.next = nil
		return w.stop(p, syscall.SIGTERM)
	}
	return w.end(syscall.SIGTERM)
}

func (w *world) restart() error { return w.end(syscall.SIGTERM) }

func (w *world) kill() error { return w.end(syscall.SIGKILL) }

// killInCall kills the node plugin while it publishes or unpublishes. The kubelet calls its successor again.
func (w *world) killInCall() error {
	d, err := w.connect()
	if err != nil {
		return err
	}
	defer d.Close()
	v, called := w.pod(), make(chan error, 1)
	go func() {
		_, err := w.Publish(w.ctx, d, v)
		if err == nil {
			err = w.Unpublish(w.ctx, d, v)
		}
		called <- err
	}()
	time.Sleep(time.Duration(w.rand.Int64N(int64(30 * time.Millisecond))))
	err = w.end(syscall.SIGKILL)
	w.note("  the calls: %v", <-called)
	if err != nil {
		return err
	}
	w.published = append(w.published, v)
	return w.publish(v)
}

// end ends the node plugin that runs, and has the next one serve.
func (w *world) end(sig syscall.Signal) error {
	if err := w.stop(w.running, sig); err != nil {
		return err
	}
	return w.replace()
}

// stop ends a node plugin.
func (w *world) stop(p *process, sig syscall.Signal) error {
	w.log = append(w.log, p.log)
	return p.end(sig)
}

// replace has the next node plugin serve, and counts its descriptors.
func (w *world) replace() (err error) {
	w.running, w.next = w.next, nil
	if w.running == nil {
		if w.running, err = w.start(); err != nil {
			return err
		}
	}
	d, err := w.connect()
	if err != nil {
		return err
	}
	if w.running.files, err = w.running.descriptors(); err != nil {
		return err
	}
	return d.Close()
}
