package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly-csi/mayfly/driver/renew"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/alarm"
)

// A simulated is a volume of a simulated node.
type simulated struct {
	shares   renew.Shares
	lifetime time.Duration // Of the certificates that it gets.
	takes    time.Duration // What its issuer takes; 0: it never answers.
	wishes   bool          // Its pod wants another certificate after each.
	restarts time.Duration // How long its certificate has been over when the node starts.
	failures int

	latest time.Duration // The longest time between when it was due and its start.
	starts int
}

// A fleet is the volumes of a node, with the queue and the timeouts of the driver.
type fleet struct {
	mu      sync.Mutex
	queue   *renew.Queue
	volumes map[string]*simulated
	entries map[string]renew.Entry
	silent  map[string]bool
}

func (f *fleet) set(id string, e renew.Entry) {
	f.entries[id] = e
	f.queue.Set(id, e)
}

// begin starts a try and returns its volume, and how long the try waits for the issuer.
func (f *fleet) begin(id string) (v *simulated, patience time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v = f.volumes[id]
	v.starts++
	v.latest = max(v.latest, time.Since(f.entries[id].At))
	if v.failures > 0 || f.silent[v.shares.Issuer] {
		return v, 3 * time.Second
	}
	return v, time.Minute
}

// try is what the driver does for a volume that is due.
func (f *fleet) try(ctx context.Context, id string) {
	v, patience := f.begin(id)
	answered := v.takes > 0 && v.takes <= patience
	wait := patience
	if answered {
		wait = v.takes
	}
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	now, e := time.Now(), f.entries[id]
	f.silent[v.shares.Issuer] = !answered
	if !answered {
		v.failures++
		e.At = now.Add(renew.Backoff(id, signer.NotYet, v.failures, e.Ends.After(now)))
		f.set(id, e)
		return
	}
	v.failures = 0
	e.Begins, e.Ends = now, now.Add(v.lifetime)
	e.At = renew.Rule{ID: id}.At(e.Begins, e.Ends)
	if v.wishes {
		e.At = now
	}
	f.set(id, e)
}

// add adds volumes to the fleet; edits change them.
func (f *fleet) add(kind string, n int, v simulated, edit func(i int, v *simulated)) {
	for i := range n {
		v := v
		if edit != nil {
			edit(i, &v)
		}
		f.volumes[fmt.Sprint(kind, "-", i)] = &v
	}
}

// run runs the queue for four minutes of the bubble.
func (f *fleet) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	f.queue = renew.NewQueue(time.Now, alarm.New(), 10, 64, f.try) // As the driver has it.
	done := make(chan error, 1)
	go func() { done <- f.queue.Run(ctx) }()
	f.start()
	time.Sleep(4 * time.Minute)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v", err)
	}
}

// start sets all volumes as at the start of the driver.
func (f *fleet) start() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, v := range f.volumes {
		ends := time.Now().Add(v.lifetime)
		if v.restarts > 0 {
			ends = time.Now().Add(-v.restarts)
		}
		e := renew.Entry{Begins: ends.Add(-v.lifetime), Ends: ends, Shares: v.shares}
		e.At = renew.Rule{ID: id}.At(e.Begins, e.Ends)
		if now := time.Now(); e.At.Before(now) {
			e.At = now // It is due from the start on.
		}
		f.set(id, e)
	}
}

// A renewal of a healthy issuer begins within seconds of its time, whatever else is on the node; in a namespace whose
// own volumes are more than the node can renew, before the certificate ends. Certificates of ten seconds never end.
func TestNobodyHoldsUpOthers(t *testing.T) {
	shop, silent := renew.Shares{Namespace: "shop", Pod: "web", Issuer: "ca"}, renew.Shares{Namespace: "evil", Pod: "evil", Issuer: "silent"}
	podOf := func(i int, v *simulated) { v.shares.Pod = fmt.Sprint("pod-", i) }
	const soon, beforeItEnds = 5 * time.Second, 40 * time.Second
	for name, row := range map[string]struct {
		within time.Duration
		others func(f *fleet)
	}{
		"nobody": {soon, func(*fleet) {}},
		"a silent issuer": {soon, func(f *fleet) {
			f.add("silent", 490, simulated{shares: silent, lifetime: 90 * time.Second}, podOf)
		}},
		"a silent issuer in the same pod": {soon, func(f *fleet) {
			shares := shop
			shares.Issuer = "silent"
			f.add("silent", 490, simulated{shares: shares, lifetime: 90 * time.Second}, nil)
		}},
		"five silent issuers": {soon, func(f *fleet) {
			f.add("silent", 490, simulated{shares: silent, lifetime: 90 * time.Second}, func(i int, v *simulated) {
				v.shares.Issuer = fmt.Sprint("silent-", i%5)
			})
		}},
		"a slow issuer": {soon, func(f *fleet) {
			f.add("slow", 490, simulated{shares: silent, lifetime: 5 * time.Minute, takes: 40 * time.Second}, podOf)
		}},
		"an issuer that takes longer than a try": {soon, func(f *fleet) {
			f.add("slow", 490, simulated{shares: silent, lifetime: 5 * time.Minute, takes: 80 * time.Second}, podOf)
		}},
		"short lifetimes in one pod": {soon, func(f *fleet) {
			f.add("short", 490, simulated{shares: renew.Shares{Namespace: "evil", Pod: "evil", Issuer: "ca"}, lifetime: 3 * time.Second, takes: time.Millisecond}, nil)
		}},
		"short lifetimes in many pods of the same namespace": {beforeItEnds, func(f *fleet) {
			f.add("short", 490, simulated{shares: shop, lifetime: 30 * time.Second, takes: time.Millisecond}, podOf)
		}},
		"certificates of a minute in many pods of the same namespace": {beforeItEnds, func(f *fleet) {
			f.add("short", 490, simulated{shares: shop, lifetime: time.Minute, takes: time.Millisecond}, podOf)
		}},
		"an issuer that signs for seconds, everywhere": {soon, func(f *fleet) {
			f.add("short", 490, simulated{shares: shop, lifetime: 3 * time.Second, takes: 100 * time.Millisecond}, func(i int, v *simulated) {
				v.shares = renew.Shares{Namespace: fmt.Sprint("space-", i%9), Pod: fmt.Sprint("pod-", i%100), Issuer: "seconds"}
				if i%10 == 0 {
					v.shares.Namespace, v.shares.Pod = "shop", "web"
				}
			})
		}},
		"many issuers and pods of one namespace": {soon, func(f *fleet) {
			f.add("short", 490, simulated{shares: silent, lifetime: 3 * time.Second, takes: time.Second}, func(i int, v *simulated) {
				v.shares.Pod, v.shares.Issuer = fmt.Sprint("pod-", i), fmt.Sprint("issuer-", i)
			})
		}},
		"wishes": {soon, func(f *fleet) {
			f.add("wish", 490, simulated{shares: silent, lifetime: time.Hour, takes: time.Millisecond, wishes: true}, podOf)
		}},
		"certificates that ended long ago": {soon, func(f *fleet) {
			f.add("ended", 245, simulated{shares: silent, lifetime: time.Minute, restarts: time.Hour}, podOf)
			f.add("healthy", 245, simulated{shares: renew.Shares{Namespace: "many", Issuer: "ca"}, lifetime: time.Hour, takes: time.Second, restarts: time.Hour}, podOf)
		}},
		"all of that": {soon, func(f *fleet) {
			f.add("silent", 120, simulated{shares: silent, lifetime: time.Minute, restarts: time.Hour}, podOf)
			f.add("slow", 100, simulated{shares: renew.Shares{Namespace: "slow", Issuer: "slow"}, lifetime: time.Minute, takes: 40 * time.Second}, podOf)
			f.add("short", 100, simulated{shares: renew.Shares{Namespace: "short", Pod: "a", Issuer: "ca"}, lifetime: 3 * time.Second, takes: time.Second}, nil)
			f.add("wish", 100, simulated{shares: renew.Shares{Namespace: "wish", Pod: "b", Issuer: "ca"}, lifetime: time.Hour, takes: time.Second, wishes: true}, nil)
			f.add("same", 70, simulated{shares: renew.Shares{Namespace: "shop", Issuer: "silent"}, lifetime: time.Minute}, podOf)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fleet{volumes: map[string]*simulated{}, entries: map[string]renew.Entry{}, silent: map[string]bool{}}
			f.add("good", 5, simulated{shares: shop, lifetime: 2 * time.Minute, takes: 100 * time.Millisecond}, nil)
			f.add("overdue", 5, simulated{shares: shop, lifetime: 2 * time.Minute, takes: 100 * time.Millisecond, restarts: time.Second}, nil)
			f.add("brief", 5, simulated{shares: renew.Shares{Namespace: "users", Pod: "user", Issuer: "ca"}, lifetime: 10 * time.Second, takes: 100 * time.Millisecond}, nil)
			row.others(f)
			synctest.Test(t, f.run)
			for i := range 5 {
				for kind, within := range map[string]time.Duration{"good": row.within, "overdue": row.within, "brief": 3 * time.Second} {
					v := f.volumes[fmt.Sprint(kind, "-", i)]
					if v.latest > within || v.starts < 2 {
						t.Errorf("%s-%d: %d renewals, the latest %s after its time", kind, i, v.starts, v.latest)
					}
				}
			}
		})
	}
}
