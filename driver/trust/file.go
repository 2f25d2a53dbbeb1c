package trust

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settleDelay is how long after its last change a file is read: a writer that does not rename writes in pieces.
const settleDelay = 100 * time.Millisecond

// watchFile reports each content of a file, until ctx ends.
func watchFile(ctx context.Context, name, path string, report func(Answer)) {
	if path == "" {
		report(Answer{Err: fmt.Errorf("this driver has no file %s any more: its operator sets --trust-file", name)})
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		if readChanges(ctx, path, report) != nil {
			report(read(path))
			pause(ctx)
		}
	}
}

// pause waits before the next look at the file on a node that has no inotify descriptors or watches left (inotify(7),
// /proc interfaces): other processes may free some.
func pause(ctx context.Context) {
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// readChanges reads the file, and again after its next change.
func readChanges(ctx context.Context, path string, report func(Answer)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	for {
		// The watch comes before the read: no change is missed.
		names, err := addWatches(watcher, path)
		if err != nil {
			return err
		}
		report(read(path))
		if !waitForChange(ctx, watcher, names) {
			return nil
		}
	}
}

// addWatches watches the directories of all names through which the path is resolved, and returns those names.
func addWatches(watcher *fsnotify.Watcher, path string) (names []string, err error) {
	for last := []string(nil); ; last = names {
		if names = pathNames(path); slices.Equal(names, last) {
			break // Nothing changed between reading the links and watching them.
		}
		for _, name := range names {
			// Where one is missing, its parents are watched, too.
			err := watcher.Add(filepath.Dir(name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
				return nil, err
			}
		}
	}
	for _, dir := range watcher.WatchList() {
		if !slices.ContainsFunc(names, func(name string) bool { return filepath.Dir(name) == dir }) {
			_ = watcher.Remove(dir) // It may be gone.
		}
	}
	return names, nil
}

// pathNames returns the names of all directories and links through which the path of a file is resolved, in order: the
// kubelet's volumes have links, and so may their parents.
func pathNames(path string) []string {
	names := map[string]bool{}
	for paths := []string{path}; len(paths) > 0; paths = paths[1:] {
		whole := paths[0]
		for p := whole; p != "/" && !names[p]; p = filepath.Dir(p) {
			names[p] = true
			to, err := os.Readlink(p)
			if err != nil {
				continue
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(p), to)
			}
			if rest, err := filepath.Rel(p, whole); err == nil {
				paths = append(paths, filepath.Join(to, rest))
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// waitForChange waits for a change of one of the names and then for settleDelay; it returns false if ctx ends.
func waitForChange(ctx context.Context, watcher *fsnotify.Watcher, names []string) bool {
	for relevant := false; !relevant; {
		select {
		case e := <-watcher.Events:
			relevant = slices.Contains(names, filepath.Clean(e.Name))
		case <-watcher.Errors: //nolint:errcheck // Events were lost: the file is read again.
			relevant = true
		case <-ctx.Done():
			return false
		}
	}
	timer := time.NewTimer(settleDelay)
	defer timer.Stop()
	for {
		select {
		case <-watcher.Events:
		case <-watcher.Errors: //nolint:errcheck // As above.
		case <-timer.C:
			return true
		case <-ctx.Done():
			return false
		}
	}
}

// read reads the file.
func read(path string) Answer {
	f, err := os.Open(path) // #nosec G304 -- The operator names it.
	if errors.Is(err, fs.ErrNotExist) {
		return Answer{Err: fmt.Errorf("file %s not found", path)}
	}
	if err != nil {
		return Answer{Err: fmt.Errorf("read a trust file: %w", err)}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return Answer{Err: fmt.Errorf("read a trust file: %w", err)}
	}
	a := answer(text, "file "+path)
	if a.Err == nil && !bytes.Equal(text, a.Certificates.Encode()) {
		a.Text = text
	}
	return a
}
