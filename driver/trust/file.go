package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
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
		if err := arm(watcher, path); err != nil {
			return err
		}
		tell(read(path))
		if !changed(ctx, watcher) {
			return nil
		}
	}
}

// arm watches the directories in which the file's names are: its own, and that of the file behind symbolic links, as the kubelet's volumes have them.
// Where one is missing, its nearest parent is watched.
func arm(watcher *fsnotify.Watcher, path string) error {
	wanted := []string{filepath.Dir(path)}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		wanted = append(wanted, filepath.Dir(real))
	}
	for i, dir := range wanted {
		var err error
		if wanted[i], err = watchNearest(watcher, dir); err != nil {
			return err
		}
	}
	for _, dir := range watcher.WatchList() {
		if !slices.Contains(wanted, dir) {
			_ = watcher.Remove(dir) // It may be gone.
		}
	}
	return nil
}

// watchNearest watches the directory, or the first of its parents that exists.
func watchNearest(watcher *fsnotify.Watcher, dir string) (string, error) {
	for {
		err := watcher.Add(dir)
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return dir, err
		}
		dir = filepath.Dir(dir)
	}
}

// changed waits for a change and until it has settled; it is false if ctx ends.
func changed(ctx context.Context, watcher *fsnotify.Watcher) bool {
	select {
	case <-watcher.Events:
	case <-watcher.Errors: //nolint:errcheck // Events were lost: the file is read again.
	case <-ctx.Done():
		return false
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
