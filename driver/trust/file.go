package trust

import (
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

// settle is for how long a file is left alone after a change: who does not rename writes in pieces.
const settle = 100 * time.Millisecond

// watchFile tells what a file has, until ctx ends.
func watchFile(ctx context.Context, name, path string, tell func(Answer)) {
	if path == "" {
		tell(Answer{Err: fmt.Errorf("this driver has no file %s any more: its operator sets --trust-file", name)})
		<-ctx.Done()
		return
	}
	for ctx.Err() == nil {
		if err := readChanges(ctx, path, tell); err != nil {
			tell(Answer{Err: fmt.Errorf("watch %s: %w", path, err)})
			pause(ctx)
		}
	}
}

// pause is for a node that has no inotify descriptors or watches left (inotify(7), /proc interfaces): others may give some back.
func pause(ctx context.Context) {
	timer := time.NewTimer(30 * time.Second)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// readChanges reads the file whenever it has changed.
func readChanges(ctx context.Context, path string, tell func(Answer)) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	for {
		// The watch comes before the read: no change is missed.
		names, err := arm(watcher, path)
		if err != nil {
			return err
		}
		tell(read(path))
		if !changed(ctx, watcher, names) {
			return nil
		}
	}
}

// arm watches the directories of all names that decide what the path is, and returns those names.
func arm(watcher *fsnotify.Watcher, path string) (names []string, err error) {
	for last := []string(nil); ; last = names {
		if names = deciding(path); slices.Equal(names, last) {
			break // Nothing changed between the look and the watch.
		}
		for _, name := range names {
			// Where one is missing, its parents are watched, too.
			if err := watcher.Add(filepath.Dir(name)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
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

// deciding are the names of all directories and links on the way to a file, in order: the kubelet's volumes have links, and so may their parents.
func deciding(path string) []string {
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

// changed waits for a change of one of the names, and until it has settled; it is false if ctx ends.
func changed(ctx context.Context, watcher *fsnotify.Watcher, names []string) bool {
	for seen := false; !seen; {
		select {
		case e := <-watcher.Events:
			seen = slices.Contains(names, filepath.Clean(e.Name))
		case <-watcher.Errors: //nolint:errcheck // Events were lost: the file is read again.
			seen = true
		case <-ctx.Done():
			return false
		}
	}
	timer := time.NewTimer(settle)
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

// read is what the file has now.
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
	return answer(text, "file "+path)
}
