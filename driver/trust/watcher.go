package trust

import (
	"bytes"
	"context"
	"log/slog"
	"sync"

	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/driver/volume"
)

// Config configures a Watcher.
type Config struct {
	API   *rest.Config      // nil: there is no API server, and only files are sources.
	Files map[string]string // Paths by the names that volumes use.
	Log   *slog.Logger
}

// A Watcher watches sources: each once, from its first follower to its last. Make one with [New].
type Watcher struct {
	Config
	cluster *cluster // nil: none.

	mu      sync.Mutex
	watched map[volume.Source]*watched
}

// A watched source has a goroutine, which its last follower ends and waits for.
type watched struct {
	followers map[*func()]struct{}
	answer    Answer
	cancel    context.CancelFunc
	done      chan struct{}
}

// New makes a watcher.
func New(config Config) (*Watcher, error) {
	w := &Watcher{Config: config, watched: map[volume.Source]*watched{}}
	if config.API == nil {
		return w, nil
	}
	var err error
	w.cluster, err = newCluster(config.API)
	return w, err
}

// Follow watches the source until stop is called, and calls changed after each change of its answer. Within changed
// neither may be called, and it must not block.
func (w *Watcher) Follow(source volume.Source, changed func()) (stop func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.watched[source]
	if !ok {
		s = w.begin(source)
		w.watched[source] = s
	}
	follower := &changed
	s.followers[follower] = struct{}{}
	return sync.OnceFunc(func() { w.unfollow(source, s, follower) })
}

// Answer returns the last answer of the source; the zero Answer if it was not read yet or nobody follows it.
func (w *Watcher) Answer(source volume.Source) Answer {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.watched[source]; ok {
		return s.answer
	}
	return Answer{}
}

// begin starts to watch a source. w.mu must be held.
func (w *Watcher) begin(source volume.Source) *watched {
	ctx, cancel := context.WithCancel(context.Background())
	s := &watched{followers: map[*func()]struct{}{}, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		w.watch(ctx, source, func(a Answer) { w.setAnswer(source, s, a) })
	}()
	return s
}

// unfollow removes a follower; the last one ends the watch and waits for its end.
func (w *Watcher) unfollow(source volume.Source, s *watched, follower *func()) {
	if w.removeFollower(source, s, follower) {
		s.cancel()
		<-s.done
	}
}

// removeFollower removes a follower and reports whether it was the last one.
func (w *Watcher) removeFollower(source volume.Source, s *watched, follower *func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(s.followers, follower)
	if len(s.followers) > 0 {
		return false
	}
	delete(w.watched, source)
	return true
}

// watch reports each content of the source, until ctx ends.
func (w *Watcher) watch(ctx context.Context, source volume.Source, report func(Answer)) {
	switch {
	case source.Kind == volume.FileSource:
		watchFile(ctx, source.Name, w.Files[source.Name], report)
	case source.Kind == volume.PublicSource:
		watchPublic(ctx, w.Log, report)
	case w.cluster == nil:
		report(Answer{Err: errNoAPI})
		<-ctx.Done()
	default:
		w.cluster.watch(ctx, source, report)
	}
}

// setAnswer records an answer and calls the followers, unless it equals the last one.
func (w *Watcher) setAnswer(source volume.Source, s *watched, a Answer) {
	w.mu.Lock()
	before := s.answer
	if same(before, a) {
		w.mu.Unlock()
		return
	}
	s.answer = a
	var followers []*func()
	for f := range s.followers {
		followers = append(followers, f)
	}
	w.mu.Unlock()
	log := w.Log.With("source", source.String(), "namespace", source.Namespace, "volumes", len(followers))
	if a.Err != nil {
		log.Warn("no CA certificates from a trust source: volumes keep those that they have", "error", a.Err)
	} else {
		log.Info("CA certificates from a trust source", "certificates", len(a.Certificates))
		if unparsed := a.Certificates.Unparsed(); len(unparsed) > 0 {
			log.Warn("CA certificates are passed on unchecked", "problems", unparsed)
		}
	}
	for _, f := range followers {
		(*f)()
	}
}

// same reports whether two answers are equal; errors are by their texts.
func same(a, b Answer) bool {
	if a.Err != nil || b.Err != nil {
		return a.Err != nil && b.Err != nil && a.Err.Error() == b.Err.Error()
	}
	return a.Certificates.Equal(b.Certificates) && (a.Certificates == nil) == (b.Certificates == nil) &&
		bytes.Equal(a.Text, b.Text)
}
