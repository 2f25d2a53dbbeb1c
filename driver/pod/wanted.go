package pod

import (
	"sync"
	"time"
)

// Wanted is when annotations ask for renewals, by the UIDs of pods. The zero Wanted is ready for use.
type Wanted struct {
	mu sync.Mutex
	at map[string]time.Time
}

// Set says when the certificates of a pod are to be renewed; the zero time: nobody asks for that.
func (w *Wanted) Set(uid string, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.at == nil {
		w.at = map[string]time.Time{}
	}
	w.at[uid] = at
	if at.IsZero() {
		delete(w.at, uid)
	}
}

// At returns what was set.
func (w *Wanted) At(uid string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at[uid]
}
