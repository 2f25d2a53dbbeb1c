package sockets

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/mayfly-csi/mayfly/signer/local"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// host is the name that pods' certificates are for.
const host = "web.shop.svc"

// check is the oracle. It demands what holds after every step, within bound.
func (w *world) check() error {
	d, err := w.connect()
	if err != nil {
		return err
	}
	if err := d.Close(); err != nil {
		return err
	}
	for _, v := range w.published {
		if err := w.accepts(v); err != nil {
			return err
		}
		if err := w.until("of "+v.UID, func() error { return w.valid(v) }); err != nil {
			return err
		}
	}
	for _, v := range w.gone {
		if err := w.left(v); err != nil {
			return err
		}
	}
	w.gone = nil
	return errors.Join(w.until("mounts", w.mounts), w.until("descriptors", w.descriptors))
}

// finish demands that a node plugin renews what one before it has published. It unpublishes all, and demands that
// nothing is left and that the node plugins end well.
func (w *world) finish() error {
	v := w.pod()
	v.Attributes[duration] = short
	w.published = append(w.published, v)
	if err := w.publish(v); err != nil {
		return err
	}
	for _, step := range []func() error{w.kill, w.renewals, w.check} {
		if err := step(); err != nil {
			return err
		}
	}
	for len(w.published) > 0 {
		if err := w.goes(); err != nil {
			return err
		}
	}
	if err := w.check(); err != nil {
		return err
	}
	return w.ends()
}

// ends tells the node plugins to stop, and demands that no socket is left.
func (w *world) ends() error {
	for w.running != nil {
		p := w.running
		w.running, w.next = w.next, nil
		if err := w.stop(p, syscall.SIGTERM); err != nil {
			return err
		}
	}
	for _, path := range []string{endpoint(w.Root), registrationSocket(w.Root)} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is left", path)
		}
	}
	return nil
}

// answers demands that the process answers, and no other one.
func (p *process) answers(ctx context.Context, d kubelet.Driver) error {
	info, err := d.GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err == nil && info.GetVendorVersion() != p.version {
		err = fmt.Errorf("%s answers, want %s", info.GetVendorVersion(), p.version)
	}
	return err
}

// accepts demands that a pod has a pair now that a peer accepts while it is valid: it may have ended while no node
// plugin ran.
func (w *world) accepts(v kubelet.Volume) error { return w.verify(v, time.Time{}) }

// valid demands that a peer accepts the pair now.
func (w *world) valid(v kubelet.Volume) error { return w.verify(v, time.Now()) }

// verify demands that a peer that knows the CA accepts the pair at a time; zero: at its end.
func (w *world) verify(v kubelet.Volume, at time.Time) error {
	leaf, err := kubelet.Load(w.Target(v))
	if err != nil {
		return fmt.Errorf("%s has lost its pair: %w", v.UID, err)
	}
	ca, err := os.ReadFile(filepath.Join(authority(w.Root), local.CertificateFile))
	if err != nil {
		return err
	}
	if at.IsZero() {
		at = leaf.NotAfter
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: at}); err != nil {
		return fmt.Errorf("no peer accepts the pair of %s: %w", v.UID, err)
	}
	return nil
}

// left demands that nothing is left of a volume.
func (w *world) left(v kubelet.Volume) error {
	for _, path := range []string{filepath.Join(w.Root, "pods", v.UID), filepath.Join(stateDir(w.Root), v.ID())} {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is left", path)
		}
	}
	return nil
}

// mounts demands that each volume has its two mounts, and that there are no others but the state directory's own.
func (w *world) mounts() error {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	found, want := map[string]int{}, map[string]int{stateDir(w.Root): 1}
	for line := range strings.Lines(string(text)) {
		if path := strings.Fields(line)[4]; strings.HasPrefix(path, w.Root+"/") { // proc_pid_mountinfo(5)
			found[path]++
		}
	}
	for _, v := range w.published {
		want[w.Target(v)], want[filepath.Join(stateDir(w.Root), v.ID())] = 1, 1
	}
	for path, n := range want {
		if found[path] != n {
			return fmt.Errorf("%s is mounted %d times, want %d", path, found[path], n)
		}
	}
	if len(found) != len(want) {
		return fmt.Errorf("mounts %v, want %v", found, want)
	}
	return nil
}

// descriptors demands that the node plugin has no more files open than when it first served, a connection included.
func (w *world) descriptors() error {
	n, err := w.running.descriptors()
	if err == nil && n > w.running.files {
		err = fmt.Errorf("%s has %d, and had %d at its start", w.running.version, n, w.running.files)
	}
	return err
}
