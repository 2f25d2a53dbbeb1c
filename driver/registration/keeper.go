package registration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	// repairDelay is the time between a change and the repair. Another process may be about to replace the socket; and
	// against one that removes it again and again it is restored once in this time.
	repairDelay = time.Second
	// pollInterval is the time between checks where no event reports a change: no inotify descriptor is left
	// (inotify(7), /proc interfaces), or another process has replaced a socket, and may be killed.
	pollInterval = 30 * time.Second
)

// A keeper restores sockets that were removed.
type keeper struct {
	sockets   []*socket
	failed    func(error) // Called when a restored socket fails.
	log       *slog.Logger
	unwatched bool
}

// run restores sockets until ctx ends. It sleeps while nothing changes.
func (k *keeper) run(ctx context.Context) {
	if len(k.sockets) == 0 {
		<-ctx.Done()
	}
	for ctx.Err() == nil {
		k.round(ctx)
		sleep(ctx, repairDelay)
	}
}

// round restores the sockets that are lost; if none is, it waits for a change.
func (k *keeper) round(ctx context.Context) {
	// The watch is started before the check, so that no change is missed.
	watcher, err := k.watch()
	if err == nil {
		defer watcher.Close()
	}
	if !k.repair(ctx) {
		return
	}
	k.report(err)
	if err != nil {
		sleep(ctx, pollInterval)
		return
	}
	if slices.ContainsFunc(k.sockets, func(s *socket) bool { return s.state == replaced }) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, pollInterval)
		defer cancel()
	}
	k.wait(ctx, watcher)
}

// watch watches the directories of the sockets. It makes new watches: a directory may have been replaced.
func (k *keeper) watch() (*fsnotify.Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	for _, s := range k.sockets {
		if err := watcher.Add(filepath.Dir(s.path)); err != nil {
			return nil, errors.Join(err, watcher.Close())
		}
	}
	return watcher, nil
}

// report logs that the sockets can't be watched, once until they can.
func (k *keeper) report(err error) {
	if err != nil && !k.unwatched {
		k.log.Warn("the sockets can't be watched: they are checked every 30 seconds", "error", err)
	}
	k.unwatched = err != nil
}

// repair restores the sockets that are lost, in the order in which they were opened, and reports whether none was.
func (k *keeper) repair(ctx context.Context) bool {
	complete := true
	for _, s := range k.sockets {
		before, now := s.state, s.check(ctx)
		if ctx.Err() != nil {
			return false
		}
		if now != before {
			s.setState(now)
		}
		switch {
		case now == lost:
			complete = false
			k.restore(ctx, s, before)
		case now == replaced && before != replaced:
			k.log.Warn("another process answers on the socket: it has new calls until it ends", "path", s.path)
		}
	}
	return complete
}

// restore opens a lost socket again, and logs that; of failures in a row only the first. If that can't succeed the
// server fails.
func (k *keeper) restore(ctx context.Context, s *socket, before state) {
	if err := s.open(ctx, k.failed); err == nil {
		k.log.Warn("a socket was gone, and has been put back", "path", s.path)
	} else if dir := filepath.Dir(s.path); removed(dir) {
		k.failed(fmt.Errorf("%s was removed from the node, and a container sees a new one after a restart: %w", dir, err))
	} else if before != lost {
		k.log.Error("a socket is gone and can't be put back; this is tried every second", "path", s.path, "error", err)
	}
}

// removed reports whether a directory was removed that is mounted here: nothing can be made in it any more.
func removed(dir string) bool {
	var stat unix.Stat_t
	return unix.Stat(dir, &stat) == nil && stat.Nlink == 0
}

// wait returns after a change of a socket or of its directory, and when ctx ends.
func (k *keeper) wait(ctx context.Context, watcher *fsnotify.Watcher) {
	for {
		select {
		case e := <-watcher.Events:
			concerns := func(s *socket) bool { return e.Name == s.path || e.Name == filepath.Dir(s.path) }
			if slices.ContainsFunc(k.sockets, concerns) {
				return
			}
		case <-watcher.Errors: //nolint:errcheck // Events were lost.
			return
		case <-ctx.Done():
			return
		}
	}
}

// sleep waits for the duration or until ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
