package trust_test

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver/trust"
)

// A follower follows a file, and is woken by its changes.
type follower struct {
	t       *testing.T
	watcher *trust.Watcher
	woken   chan struct{}
	stop    func()
}

func follow(t *testing.T, path string) *follower {
	t.Helper()
	w, err := trust.New(trust.Config{Files: map[string]string{"corp": path}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	f := &follower{t: t, watcher: w, woken: make(chan struct{}, 1000)}
	f.stop = w.Follow(corp, func() { f.woken <- struct{}{} })
	t.Cleanup(f.stop)
	return f
}

// until waits for an answer: certificates, or an error that has the text.
func (f *follower) until(cas []*ca, problem string) {
	f.t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		a := f.watcher.Answer(corp)
		if a.Err != nil && problem != "" && strings.Contains(a.Err.Error(), problem) {
			return
		}
		if problem == "" && a.Err == nil && a.Certificates.Equal(list(cas...)) {
			return
		}
		select {
		case <-f.woken:
		case <-timeout:
			f.t.Fatalf("waited in vain for %s%s: %v, %v", names(list(cas...)), problem, names(a.Certificates), a.Err)
		}
	}
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFile(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	dir := filepath.Join(t.TempDir(), "deep", "down")
	path := filepath.Join(dir, "ca.pem")
	f := follow(t, path)
	f.until(nil, "file "+path+" not found")
	do(t, os.MkdirAll(dir, 0o700))
	write(t, path, list(a).Encode())
	f.until([]*ca{a}, "")
	write(t, path, list(a, b).Encode()) // In place.
	f.until([]*ca{a, b}, "")
	write(t, path+".new", list(b).Encode())
	do(t, os.Rename(path+".new", path))
	f.until([]*ca{b}, "")
	write(t, path, []byte("garbage"))
	f.until(nil, "file "+path+": there is no certificate in 7 bytes")
	do(t, os.Remove(path))
	f.until(nil, "not found")
	do(t, os.RemoveAll(filepath.Dir(dir)))
	do(t, os.MkdirAll(dir, 0o700))
	write(t, path, list(a).Encode())
	f.until([]*ca{a}, "")
}

// The kubelet swaps a link beside the files, which are links through it.
func TestAFileOfAVolumeOfTheKubelet(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	dir := t.TempDir()
	generation := func(name string, cas ...*ca) {
		do(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "ca.pem"), list(cas...).Encode())
		do(t, os.Symlink(name, filepath.Join(dir, "..data_tmp")), os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
	}
	generation("..1", a)
	do(t, os.Symlink("..data/ca.pem", filepath.Join(dir, "ca.pem")))
	f := follow(t, filepath.Join(dir, "ca.pem"))
	f.until([]*ca{a}, "")
	generation("..2", a, b)
	do(t, os.RemoveAll(filepath.Join(dir, "..1")))
	f.until([]*ca{a, b}, "")
	generation("..3", b)
	f.until([]*ca{b}, "")
}

// A link leads to a file that others replace.
func TestALinkToAFile(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	real, link := filepath.Join(t.TempDir(), "real.pem"), filepath.Join(t.TempDir(), "ca.pem")
	write(t, real, list(a).Encode())
	do(t, os.Symlink(real, link))
	f := follow(t, link)
	f.until([]*ca{a}, "")
	write(t, real+".new", list(b, a).Encode())
	do(t, os.Rename(real+".new", real))
	f.until([]*ca{b, a}, "")
}

// Links in the middle of a path, and links to links, are moved as links to files are.
func TestLinksOnTheWayToAFile(t *testing.T) {
	a, b, c := newCA(t, "a", nil), newCA(t, "b", nil), newCA(t, "c", nil)
	dir := t.TempDir()
	for name, ca := range map[string]*ca{"v1": a, "v2": b, "v3": c} {
		do(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		write(t, filepath.Join(dir, name, "ca.pem"), list(ca).Encode())
	}
	point := func(link, to string) {
		do(t, os.Symlink(to, filepath.Join(dir, "aside")), os.Rename(filepath.Join(dir, "aside"), filepath.Join(dir, link)))
	}
	point("current", "v1")
	point("stable", "current")
	f := follow(t, filepath.Join(dir, "stable", "ca.pem"))
	f.until([]*ca{a}, "")
	point("current", "v2")
	f.until([]*ca{b}, "")
	point("stable", "v3")
	f.until([]*ca{c}, "")
	do(t, os.Rename(filepath.Join(dir, "v3"), filepath.Join(dir, "old")), os.Rename(filepath.Join(dir, "v1"), filepath.Join(dir, "v3")))
	f.until([]*ca{a}, "")
}

func TestAFileThatTheDriverDoesNotHave(t *testing.T) {
	f := follow(t, "")
	f.until(nil, "this driver has no file corp any more: its operator sets --trust-file")
}

func TestASourceOfAnAPIServerThatIsNotThere(t *testing.T) {
	w, err := trust.New(trust.Config{Log: slog.New(slog.DiscardHandler)})
	do(t, err)
	woken := make(chan struct{}, 1)
	defer w.Follow(mesh, func() { woken <- struct{}{} })()
	<-woken
	if a := w.Answer(mesh); a.Err == nil || !strings.Contains(a.Err.Error(), "this driver knows no API server") {
		t.Errorf("%v", a.Err)
	}
}

// A source has one watch however many follow it, from the first to the last.
func TestFollowers(t *testing.T) {
	a, b := newCA(t, "a", nil), newCA(t, "b", nil)
	path := filepath.Join(t.TempDir(), "ca.pem")
	write(t, path, list(a).Encode())
	f := follow(t, path)
	second := make(chan struct{}, 10)
	stop := f.watcher.Follow(corp, func() { second <- struct{}{} })
	f.until([]*ca{a}, "")
	if err := os.WriteFile(path, list(b, a).Encode(), 0o600); err != nil {
		t.Fatal(err)
	}
	f.until([]*ca{b, a}, "")
	<-second
	stop()
	stop()
	write(t, path, list(b).Encode())
	f.until([]*ca{b}, "")
	f.stop()
	if answer := f.watcher.Answer(corp); answer.Certificates != nil || answer.Err != nil {
		t.Error("there is an answer that nobody follows")
	}
	f.stop = f.watcher.Follow(corp, func() { f.woken <- struct{}{} })
	defer f.stop()
	f.until([]*ca{b}, "")
}

// A file is read on a node that has no inotify instances left, too. The test runs itself in a user namespace of its own,
// which has a limit of its own.
func TestAFileThatCantBeWatched(t *testing.T) {
	const inside = "MAYFLY_TEST_WITHOUT_INOTIFY"
	if os.Getenv(inside) != "" {
		write(t, "/proc/sys/user/max_inotify_instances", []byte("0"))
		path := filepath.Join(t.TempDir(), "ca.pem")
		one := newCA(t, "one", nil)
		write(t, path, list(one).Encode())
		follow(t, path).until([]*ca{one}, "")
		if _, err := syscall.InotifyInit1(0); err == nil {
			t.Error("there are inotify instances")
		}
		return
	}
	again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), inside+"=1")
	ids := []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER, UidMappings: ids, GidMappings: ids}
	out, err := again.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("%v\n%s", err, out)
	}
}
