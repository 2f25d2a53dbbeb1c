package pod

import (
	"sync"
	"time"
)

// Wanted holds the times at which annotations ask for renewals, by the UIDs of pods. The zero Wanted is ready for use.
type Wanted struct {
	mu sync.Mutex
	at map[string]time.Time
}

// Set records when the certificates of a pod are to be renewed; the zero time removes that.
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

// At returns the time that was set; zero: none.
func (w *Wanted) At(uid string) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at[uid]
}
