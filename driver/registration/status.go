package registration

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
)

const notRegistered = "the kubelet has not registered the driver"

// A status records what keeps the kubelet from calling plugins. The zero status is that of plugins that are not served.
type status struct {
	mu      sync.Mutex
	serving bool
	missing map[string]string // By the path of a socket or the name of a driver.
}

// setServing sets whether the plugins are served.
func (s *status) setServing(serving bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.serving = serving
}

// isServing reports whether the plugins are served.
func (s *status) isServing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving
}

// set sets what is missing of a socket or a driver; empty: nothing is.
func (s *status) set(of, missing string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.missing == nil {
		s.missing = map[string]string{}
	}
	s.missing[of] = missing
	if missing == "" {
		delete(s.missing, of)
	}
}

// error returns all that is missing; nil if nothing is.
func (s *status) error() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.serving {
		return errors.New("the driver does not serve: it starts or stops")
	}
	var errs []error
	for _, of := range slices.Sorted(maps.Keys(s.missing)) {
		errs = append(errs, fmt.Errorf("%s: %s", of, s.missing[of]))
	}
	return errors.Join(errs...)
}
