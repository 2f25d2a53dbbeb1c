package registration_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/driver/registration"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// Another driver's registrar removes the socket of its name when it ends.
func TestARemovedSocketComesBack(t *testing.T) {
	for what, remove := range map[string]func(path string) error{
		"removed":                os.Remove,
		"renamed":                func(path string) error { return os.Rename(path, path+".old") },
		"its directory removed":  func(path string) error { return os.RemoveAll(filepath.Dir(path)) },
		"its directory replaced": replaceDirectory,
	} {
		for kind, path := range map[string]func(*kubelet.Kubelet, string) string{"CSI": endpoint, "registration": registrationSocket} {
			t.Run(kind+" socket "+what, func(t *testing.T) {
				k := newKubelet(t)
				i := one(t, k, "a")
				for range 2 { // The second loss is that of a socket that was put back.
					before := inode(t, path(k, name))
					if err := remove(path(k, name)); err != nil {
						t.Fatal(err)
					}
					until(t, "the socket is back", func() bool {
						now, err := os.Lstat(path(k, name))
						return err == nil && !os.SameFile(now, before)
					})
					_ = os.Remove(path(k, name) + ".old")
					answers(t, k, i, "a")
				}
				if err := i.stop(); err != nil {
					t.Error(err)
				}
				if n := strings.Count(i.log.String(), "put back"); n != 2 {
					t.Errorf("two losses are in the log %d times", n)
				}
				gone(t, endpoint(k, name), registrationSocket(k, name))
			})
		}
	}
}

func replaceDirectory(path string) error {
	dir := filepath.Dir(path)
	return errors.Join(os.Rename(dir, dir+"-"+time.Now().Format("150405.000000")), os.Mkdir(dir, 0o750))
}

// A call in flight outlives its socket.
func TestACallGoesOnWhileItsSocketIsPutBack(t *testing.T) {
	k := newKubelet(t)
	began, release := make(chan struct{}), make(chan struct{})
	start(t, k, time.Hour, fakeNode{probe: func(context.Context) error {
		close(began)
		<-release
		return nil
	}}.plugin(k, name))
	called := probe(t, k, name)
	<-began
	if err := os.Remove(endpoint(k, name)); err != nil {
		t.Fatal(err)
	}
	until(t, "the socket is back", func() bool { return exists(endpoint(k, name)) })
	close(release)
	if err := <-called; err != nil {
		t.Error(err)
	}
}

// The newer of two wins while it runs. What it removes in the end is its own, and the older one serves again.
func TestASuccessorTakesOver(t *testing.T) {
	k := newKubelet(t)
	older := one(t, k, "older")
	newer := one(t, k, "newer")
	until(t, "the older one has seen it", func() bool {
		return strings.Count(older.log.String(), "another process answers on the socket") == 2
	})
	answers(t, k, newer, "newer")
	if err := newer.stop(); err != nil {
		t.Fatal(err)
	}
	until(t, "the older one has put its sockets back", func() bool { return strings.Count(older.log.String(), "put back") == 2 })
	answers(t, k, older, "older")
}

func TestThePredecessorsEndLeavesTheSuccessorsSockets(t *testing.T) {
	k := newKubelet(t)
	older := one(t, k, "older")
	newer := one(t, k, "newer")
	if err := older.stop(); err != nil {
		t.Fatal(err)
	}
	answers(t, k, newer, "newer")
	if strings.Contains(newer.log.String(), "level=WARN") {
		t.Error("the newer one lost a socket")
	}
}

// A successor that was killed leaves a socket on which nobody answers.
func TestADeadSocketIsReplaced(t *testing.T) {
	k := newKubelet(t)
	i := one(t, k, "a")
	leave(t, registrationSocket(k, name))
	until(t, "the socket is back", func() bool { return strings.Contains(i.log.String(), "put back") })
	answers(t, k, i, "a")
}

// A socket that can't be put back is an error once, and comes back when it can.
func TestASocketThatCannotBePutBack(t *testing.T) {
	k := newKubelet(t)
	i := one(t, k, "a")
	path := registrationSocket(k, name)
	if err := errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o750)); err != nil {
		t.Fatal(err)
	}
	until(t, "it is in the log", func() bool { return strings.Contains(i.log.String(), "can't be put back") })
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	until(t, "the socket is back", func() bool { return strings.Contains(i.log.String(), "has been put back") })
	answers(t, k, i, "a")
	if n := strings.Count(i.log.String(), "can't be put back"); n != 1 {
		t.Errorf("it is in the log %d times", n)
	}
}

// In a container the kubelet's directories are mounts. One that was removed from the node shows no new one: a new container
// does.
func TestAMountedDirectoryThatIsRemoved(t *testing.T) {
	k := newKubelet(t)
	onNode, here := filepath.Join(k.Root, "on-node"), filepath.Join(k.Root, "plugins_registry")
	if err := errors.Join(os.Mkdir(onNode, 0o750), unix.Mount(onNode, here, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(here, 0); err != nil {
			t.Error(err)
		}
	})
	s := &registration.Server{
		Plugins: []registration.Plugin{fakeNode{}.plugin(k, name)}, KubeletRoot: k.Root, Drain: time.Hour, Log: slog.New(slog.DiscardHandler),
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve(t.Context()) }()
	until(t, "it serves", s.Serving)
	until(t, "the directory is gone", func() bool { return os.RemoveAll(onNode) == nil && !exists(onNode) })
	if err := <-done; err == nil || !strings.Contains(err.Error(), here+" was removed from the node") {
		t.Error(err)
	}
}
