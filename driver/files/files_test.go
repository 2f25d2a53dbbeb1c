package files_test

import (
	"bytes"
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/mayfly-csi/mayfly/driver/files"
	"github.com/mayfly-csi/mayfly/driver/mount"
	"github.com/mayfly-csi/mayfly/driver/volume"
)

func TestWriteReplacesEverythingAtOnce(t *testing.T) {
	d := files.Dir(t.TempDir())
	write(t, d, files.Set{"tls.crt": []byte("1"), "tls.key": []byte("1"), "old": []byte("1")}, volume.Owner{})
	write(t, d, files.Set{"tls.crt": []byte("2"), "tls.key": []byte("2")}, volume.Owner{})
	for _, name := range []string{"tls.crt", "tls.key"} {
		if got, err := os.ReadFile(filepath.Join(d.Data(), name)); err != nil || string(got) != "2" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := os.Lstat(filepath.Join(d.Data(), "old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is no longer in the set: %v", err)
	}
	for i := range 5 {
		write(t, d, files.Set{"tls.crt": {byte(i)}}, volume.Owner{})
	}
	if n := generations(t, d); n != 1 {
		t.Errorf("%d generations are kept, want the current one alone", n)
	}
}

func write(t *testing.T, d files.Dir, set files.Set, owner volume.Owner) {
	t.Helper()
	if err := d.Install(files.Generation{Attempt: "a", Files: set, Owner: owner}); err != nil {
		t.Fatal(err)
	}
}

func generations(t *testing.T, d files.Dir) (n int) {
	t.Helper()
	entries, err := os.ReadDir(d.Data())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			n++
		}
	}
	return n
}

func TestOwners(t *testing.T) {
	user, group, mode := 999, 4321, fs.FileMode(0o600)
	rows := []struct {
		name      string
		owner     volume.Owner
		dir, file fs.FileMode
		uid, gid  uint32
	}{
		{"everyone who sees the volume", volume.Owner{}, 0o555, 0o444, 0, 0},
		{"the group", volume.Owner{Group: &group}, 0o550, 0o440, 0, 4321},
		{"the user", volume.Owner{User: &user}, 0o550, 0o440, 999, 0},
		{"the user alone", volume.Owner{User: &user, Group: &group, Mode: &mode}, 0o500, 0o600, 999, 4321},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d := files.Dir(t.TempDir())
			write(t, d, files.Set{"tls.key": []byte("x")}, row.owner)
			for path, want := range map[string]fs.FileMode{
				d.Data(): row.dir, filepath.Join(d.Data(), files.Current): row.dir, filepath.Join(d.Data(), "tls.key"): row.file,
			} {
				info, err := os.Stat(path)
				if err != nil {
					t.Fatal(err)
				}
				if stat := info.Sys().(*syscall.Stat_t); info.Mode().Perm() != want || stat.Uid != row.uid || stat.Gid != row.gid {
					t.Errorf("%s: %v of %d:%d, want %v of %d:%d", path, info.Mode(), stat.Uid, stat.Gid, want, row.uid, row.gid)
				}
			}
		})
	}
}

func TestAReaderNeverSeesHalfASet(t *testing.T) {
	d := files.Dir(t.TempDir())
	set := func(i int) files.Set {
		content := bytes.Repeat([]byte{byte(i)}, 4096)
		return files.Set{"tls.crt": content, "tls.key": content}
	}
	write(t, d, set(0), volume.Owner{})
	finished := make(chan struct{})
	var readers sync.WaitGroup
	read := make([]chan struct{}, 2)
	for i := range read {
		read[i] = make(chan struct{})
		readers.Go(func() {
			for {
				readPair(t, d)
				select {
				case read[i] <- struct{}{}:
				case <-finished:
					return
				}
			}
		})
	}
	for i := range 1000 {
		write(t, d, set(i), volume.Owner{})
		for _, r := range read {
			<-r
		}
	}
	close(finished)
	readers.Wait()
}

// readPair reads as a careful reader does: it opens the generation once, and again if that went away meanwhile.
func readPair(t *testing.T, d files.Dir) {
	for {
		crt, key, err := readOnce(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || len(crt) != 4096 || !bytes.Equal(crt, key) {
			t.Errorf("half a set: %d and %d bytes, %v", len(crt), len(key), err)
		}
		return
	}
}

func readOnce(d files.Dir) (crt, key []byte, err error) {
	root, err := os.OpenRoot(filepath.Join(d.Data(), files.Current))
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	crt, err1 := root.ReadFile("tls.crt")
	key, err2 := root.ReadFile("tls.key")
	return crt, key, cmp.Or(err1, err2)
}

func TestAFullVolumeKeepsItsFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := mount.Tmpfs(dir, ""); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := mount.Unmount(dir); err != nil {
			t.Error(err)
		}
	}()
	d := files.Dir(dir)
	write(t, d, files.Set{"tls.crt": []byte("good")}, volume.Owner{})
	err := d.Install(files.Generation{Attempt: "b", Pair: []byte("b"), Files: files.Set{"tls.crt": make([]byte, 64<<20)}})
	if err == nil || !strings.Contains(err.Error(), "no space left on device") {
		t.Errorf("64 MiB: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(d.Data(), "tls.crt")); err != nil || string(got) != "good" {
		t.Errorf("the files that were there: %q, %v", got, err)
	}
	if attempt, _, _ := d.InForce(); attempt != "a" {
		t.Errorf("attempt %q is in force", attempt)
	}
	write(t, d, files.Set{"tls.crt": []byte("better")}, volume.Owner{})
	if n := generations(t, d); n != 1 {
		t.Errorf("%d generations", n)
	}
}

// What is in force is what the link says: the pair that is kept beside the files is theirs, whatever an interrupted
// installation left.
func TestThePairInForceIsThatOfTheLink(t *testing.T) {
	d := files.Dir(t.TempDir())
	if _, _, err := d.InForce(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing is in force: %v", err)
	}
	install := func(attempt, pair string) {
		t.Helper()
		g := files.Generation{Attempt: attempt, Pair: []byte(pair), Trust: []byte("of " + pair), Files: files.Set{"tls.crt": []byte(pair)}}
		if err := d.Install(g); err != nil {
			t.Fatal(err)
		}
	}
	demand := func(attempt, pair string) {
		t.Helper()
		got, text, err := d.InForce()
		shown, shownErr := d.InstalledFile("tls.crt")
		known, knownErr := d.Trust()
		if err := errors.Join(err, shownErr, knownErr); err != nil || got != attempt || string(text) != pair || string(shown) != pair || string(known) != "of "+pair {
			t.Errorf("%s has %q, the pod %q (%v, %v); want %s with %q", got, text, shown, err, shownErr, attempt, pair)
		}
	}
	install("one", "1")
	demand("one", "1")
	install("one", "1, and other CA certificates")
	demand("one", "1, and other CA certificates")
	// Interrupted before the rename, twice, the second time with the link made.
	for _, name := range []string{"pair.two.0", "trust.two.0", "data/..two.0/tls.crt"} {
		path := filepath.Join(string(d), name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte("2"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	demand("one", "1, and other CA certificates")
	if err := os.Symlink("..two.0", filepath.Join(d.Data(), "..data.new")); err != nil {
		t.Fatal(err)
	}
	demand("one", "1, and other CA certificates")
	install("two", "2 anew")
	demand("two", "2 anew")
	if entries, err := os.ReadDir(string(d)); err != nil || len(entries) != 4 { // data, pair and its link, trust.
		t.Errorf("%v, %v", entries, err)
	}
}

func TestAFileOfThePodThatIsThePairIsKeptOnce(t *testing.T) {
	for _, row := range []struct {
		name string
		set  files.Set
		same bool
	}{
		{"a file that is the pair", files.Set{"bundle.pem": []byte("pair"), "tls.crt": []byte("crt")}, true},
		{"none", files.Set{"tls.crt": []byte("crt"), "longer.pem": []byte("pair and more")}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := files.Dir(t.TempDir())
			for _, attempt := range []string{"a", "a", "b"} {
				g := files.Generation{Attempt: attempt, Pair: []byte("pair"), Files: row.set}
				if err := d.Install(g); err != nil {
					t.Fatal(err)
				}
				if got, pair, err := d.InForce(); got != attempt || string(pair) != "pair" || err != nil {
					t.Errorf("attempt %s: %q of %s, %v", attempt, pair, got, err)
				}
				if n := len(glob(t, string(d), "pair.[ab]*")); n != 1 {
					t.Errorf("%d pairs are kept", n)
				}
			}
			pair, errPair := os.Stat(glob(t, string(d), "pair.[ab]*")[0])
			bundle, errBundle := os.Stat(filepath.Join(d.Data(), "bundle.pem"))
			if row.same != (errors.Join(errPair, errBundle) == nil && os.SameFile(pair, bundle)) {
				t.Errorf("one file: %v, %v", errPair, errBundle)
			}
		})
	}
}

func glob(t *testing.T, dir, pattern string) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(all) == 0 {
		t.Fatalf("%s: %v, %v", pattern, all, err)
	}
	return all
}

func TestAPairOfAnOlderDriver(t *testing.T) {
	d := files.Dir(t.TempDir())
	if err := d.Recover(); err != nil {
		t.Errorf("nothing is there: %v", err)
	}
	for path, content := range map[string]string{"pair.pem": "old", "data/..123/tls.crt": "old"} {
		path = filepath.Join(string(d), path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..123", filepath.Join(d.Data(), files.Current)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Recover(); err != nil {
			t.Fatal(err)
		}
		if attempt, pair, err := d.InForce(); err != nil || attempt != "123" || string(pair) != "old" {
			t.Errorf("%s, %q, %v", attempt, pair, err)
		}
	}
}

// What can't be removed is still on record.
func TestAWipeThatIsInterrupted(t *testing.T) {
	d := files.Dir(t.TempDir())
	if err := d.WriteRecord([]byte("a record")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "z"} { // Before and after the record in the directory.
		busy := filepath.Join(string(d), name)
		if err := os.Mkdir(busy, 0o700); err != nil {
			t.Fatal(err)
		}
		if _, err := mount.Tmpfs(busy, ""); err != nil {
			t.Fatal(err)
		}
		if err := d.RemoveAll(); err == nil {
			t.Error("what is mounted was removed")
		}
		if err := mount.Unmount(busy); err != nil {
			t.Fatal(err)
		}
		if r, err := d.Record(); err != nil || string(r) != "a record" {
			t.Errorf("the record is gone: %s, %v", r, err)
		}
		if err := os.RemoveAll(busy); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWipe(t *testing.T) {
	d := files.Dir(t.TempDir())
	g := files.Generation{Attempt: "a", Pair: []byte("x"), Files: files.Set{"tls.key": []byte("x")}}
	if err := errors.Join(d.Install(g), d.WritePendingKey([]byte("x")), d.WriteRecord([]byte("{}"))); err != nil {
		t.Fatal(err)
	}
	if err := d.RemoveAll(); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(string(d)); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A driver from before generations had files of their own finds the pair where it looks for it, and what it writes
// there is found again.
func TestAnEarlierDriverFindsThePair(t *testing.T) {
	d := files.Dir(t.TempDir())
	path := filepath.Join(string(d), "pair.pem")
	for _, text := range []string{"one", "two"} {
		g := files.Generation{Attempt: "a", Pair: []byte(text), Files: files.Set{"tls.key": []byte("x")}}
		if err := errors.Join(d.Install(g), d.Recover()); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%s, %v", got, err)
		}
	}
	if err := errors.Join(os.WriteFile(path+".old", []byte("three"), 0o600), os.Rename(path+".old", path)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.Recover(); err != nil {
			t.Fatal(err)
		}
		if _, got, err := d.InForce(); err != nil || string(got) != "three" {
			t.Errorf("%s, %v", got, err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != "three" {
			t.Errorf("%s, %v", got, err)
		}
	}
}
