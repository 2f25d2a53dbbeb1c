package issue

import (
	"context"
	"crypto"
	"slices"
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// An RSA key takes a core for long: 2048 bits some 0.1 s, 4096 bits 1 s, 8192 bits 50 s, and an unlucky one twice or
// three times as long. crypto/rsa can't be cancelled.
const (
	// concurrentKeys is how many RSA keys are made at once.
	concurrentKeys = 2
	// longKey is the size in bits above which one is made at a time, so that others never wait for it.
	longKey = 4096
	// keyTimeout is how long Close waits for keys that are being made. The process ends then.
	keyTimeout = time.Second
)

// ErrNoKey is the error of an attempt whose key is not made yet.
var ErrNoKey = signer.Errorf(signer.NotYet, "the volume's RSA key is not made yet: a node makes %d at once, and of "+
	"those with more than %d bits, which take a minute, one; keys of key-algorithm ECDSA take no time",
	concurrentKeys, longKey)

// keys makes the keys of volumes. An RSA key is made in the background, and outlives the call that asks for it: the
// volume's next call gets it. If it were dropped, a key that takes longer than a call would never be made, and cost a
// core for ever.
type keys struct {
	generate func(spec.Key) (crypto.Signer, error)

	mu       sync.Mutex
	byVolume map[string]*keyJob
	waiting  []*keyJob // The oldest first.
	running  int
	long     bool           // One of those that run is of a long key.
	starts   int            // How many were started.
	last     map[string]int // The last start of a namespace, while there are jobs that wait.
	closed   bool
	wait     sync.WaitGroup
}

// A keyJob is one key. What it brought is there once done is closed.
type keyJob struct {
	kind      spec.Key
	namespace string // Of the pod.
	done      chan struct{}
	key       crypto.Signer
	err       error
}

// newKeys returns a maker of keys that are made by generate.
func newKeys(generate func(spec.Key) (crypto.Signer, error)) *keys {
	return &keys{generate: generate, byVolume: map[string]*keyJob{}, last: map[string]int{}}
}

// get returns a key for the volume, which no later call gets, or ErrNoKey when ctx ends before it is made.
func (k *keys) get(ctx context.Context, id, namespace string, kind spec.Key) (crypto.Signer, error) {
	if kind.Algorithm != spec.RSA {
		return k.generate(kind)
	}
	job := k.job(id, namespace, kind)
	select {
	case <-job.done:
		k.forget(id)
		return job.key, job.err
	case <-ctx.Done():
		return nil, ErrNoKey
	}
}

// job returns the volume's job for a key of that kind, a new one if there is none.
func (k *keys) job(id, namespace string, kind spec.Key) *keyJob {
	k.mu.Lock()
	defer k.mu.Unlock()
	if job := k.byVolume[id]; job != nil && job.kind == kind {
		return job
	}
	k.drop(id)
	job := &keyJob{kind: kind, namespace: namespace, done: make(chan struct{})}
	k.byVolume[id] = job
	k.waiting = append(k.waiting, job)
	k.start()
	return job
}

// forget drops the volume's key: one that is being made is finished for nobody.
func (k *keys) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.drop(id)
}

// drop drops the volume's key. k.mu must be held.
func (k *keys) drop(id string) {
	job := k.byVolume[id]
	delete(k.byVolume, id)
	k.waiting = slices.DeleteFunc(k.waiting, func(waits *keyJob) bool { return waits == job })
}

// start starts jobs while there are slots. k.mu must be held.
func (k *keys) start() {
	for k.running < concurrentKeys && !k.closed {
		i := k.next()
		if i < 0 {
			break
		}
		job := k.waiting[i]
		k.waiting = slices.Delete(k.waiting, i, i+1)
		k.running++
		k.long = k.long || job.isLong()
		k.starts++
		k.last[job.namespace] = k.starts
		k.wait.Go(func() { k.run(job) })
	}
	if len(k.waiting) == 0 {
		clear(k.last)
	}
}

// next returns the index of the job to start: of those that may run, that of the namespace which had its turn first;
// -1 if there is none. k.mu must be held.
func (k *keys) next() int {
	next := -1
	for i, job := range k.waiting {
		if job.isLong() && k.long {
			continue
		}
		if next < 0 || k.last[job.namespace] < k.last[k.waiting[next].namespace] {
			next = i
		}
	}
	return next
}

// run makes the key of a job, and starts the next job.
func (k *keys) run(job *keyJob) {
	key, err := k.generate(job.kind)
	k.mu.Lock()
	defer k.mu.Unlock()
	job.key, job.err = key, err
	close(job.done)
	k.running--
	k.long = k.long && !job.isLong()
	k.start()
}

// isLong reports whether the key takes long.
func (j *keyJob) isLong() bool { return j.kind.Size > longKey }

// close starts no more jobs, and waits for those that run, for keyTimeout.
func (k *keys) close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	done := make(chan struct{})
	go func() {
		k.wait.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(keyTimeout):
	}
}
