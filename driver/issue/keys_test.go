package issue

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly-csi/mayfly/driver/request"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// slow makes keys that take a second for each 1,024 bits, and counts those that are made at once.
type slow struct {
	now, most, nowLong, mostLong int
	made                         []int // The sizes, in the order of their begins.
	err                          error
	mu                           sync.Mutex
}

func (s *slow) count(size, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now += by
	if size > longKey {
		s.nowLong += by
	}
	s.most, s.mostLong = max(s.most, s.now), max(s.mostLong, s.nowLong)
	if by > 0 {
		s.made = append(s.made, size)
	}
}

func (s *slow) generate(kind spec.Key) (crypto.Signer, error) {
	s.count(kind.Size, 1)
	defer s.count(kind.Size, -1)
	time.Sleep(time.Duration(kind.Size/1024) * time.Second)
	return ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), s.err
}

func rsaOf(size int) spec.Key { return spec.Key{Algorithm: spec.RSA, Size: size} }

// ask asks for the keys of volumes at once, and returns when each came, by its id.
func ask(t *testing.T, k *keys, namespace string, size, n int) (times []*time.Duration) {
	t.Helper()
	begin := time.Now()
	for i := range n {
		id, took := fmt.Sprintf("%s-%d-%d", namespace, size, i), new(time.Duration)
		times = append(times, took)
		go func() {
			if key, err := k.get(context.Background(), id, namespace, rsaOf(size)); err != nil || key == nil {
				t.Errorf("%s: %v, %v", id, key, err)
			}
			*took = time.Since(begin)
		}()
		synctest.Wait()
	}
	return times
}

// Two RSA keys are made at once and of long ones one, and neither long keys nor another namespace's keep a volume
// waiting.
func TestKeysAreMadeInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		k := newKeys(s.generate)
		ask(t, k, "greedy", 8192, 20)
		ask(t, k, "greedy", 4096, 20)
		ask(t, k, "busy", 4096, 20)
		two := ask(t, k, "shop", 2048, 2)
		one := ask(t, k, "mail", 2048, 1)
		time.Sleep(time.Hour)
		synctest.Wait()
		if s.most != 2 || s.mostLong != 1 || len(s.made) != 63 {
			t.Errorf("%d at once, %d of them long; %d in all", s.most, s.mostLong, len(s.made))
		}
		// The key of 4,096 bits that is being made takes 4 s, and each other namespace has a turn before the second.
		for i, took := range []time.Duration{*two[0], *two[1], *one[0]} {
			if took > 20*time.Second {
				t.Errorf("volume %d of another namespace waited for %s", i, took)
			}
		}
		if n := len(k.last) + len(k.waiting) + len(k.byVolume); n != 0 {
			t.Errorf("%d are left", n)
		}
		k.close()
	})
}

// A call ends with its context. The volume's next one gets the key that was begun for it, and nobody gets it twice.
func TestAKeyOutlivesItsCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		k := newKeys(s.generate)
		begin := time.Now()
		for range 2 {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
			if _, err := k.get(ctx, "csi-1", "shop", rsaOf(8192)); !errors.Is(err, ErrNoKey) {
				t.Error(err)
			}
			cancel()
		}
		if took := time.Since(begin); took != 6*time.Second {
			t.Errorf("the calls took %s", took)
		}
		if key, err := k.get(t.Context(), "csi-1", "shop", rsaOf(8192)); err != nil || key == nil || len(s.made) != 1 {
			t.Errorf("%v, %v; %d were made", key, err, len(s.made))
		}
		if took := time.Since(begin); took != 8*time.Second {
			t.Errorf("the key came after %s", took)
		}
		if _, err := k.get(t.Context(), "csi-1", "shop", rsaOf(8192)); err != nil || len(s.made) != 2 {
			t.Errorf("%v; the renewal has the same key", err)
		}
		k.close()
	})
}

// A volume that is removed has no key, and one that waits for its turn never will.
func TestForgottenKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		k := newKeys(s.generate)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for _, id := range []string{"runs", "runs too", "waits"} {
			_, err := k.get(ended, id, "shop", rsaOf(2048))
			if !errors.Is(err, ErrNoKey) {
				t.Error(err)
			}
		}
		for _, id := range []string{"runs", "waits", "unknown"} {
			k.forget(id)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(s.made) != 2 || len(k.byVolume) != 1 {
			t.Errorf("%d were made, %d are kept", len(s.made), len(k.byVolume))
		}
		if _, err := k.get(t.Context(), "runs too", "shop", rsaOf(3072)); err != nil || !slices.Equal(s.made, []int{2048, 2048, 3072}) {
			t.Errorf("of another kind: %v; made are %v", err, s.made)
		}
		s.err = errors.New("no randomness")
		for range 2 {
			if _, err := k.get(t.Context(), "csi-1", "shop", rsaOf(2048)); !errors.Is(err, s.err) {
				t.Error(err)
			}
		}
		k.close()
	})
}

// What ends does not wait for a key that takes long, nor begin another.
func TestKeysWhenTheDriverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{}
		k := newKeys(s.generate)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		for i := range 3 {
			if _, err := k.get(ended, fmt.Sprint(i), "shop", rsaOf(8192)); !errors.Is(err, ErrNoKey) {
				t.Error(err)
			}
		}
		begin := time.Now()
		k.close()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it took %s", took)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(s.made) != 1 {
			t.Errorf("%d were made", len(s.made))
		}
	})
}

// Keys that take no time wait for nobody.
func TestOtherKeysDoNotWait(t *testing.T) {
	k := newKeys(request.NewKey)
	k.running, k.closed = concurrentKeys, true
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	key, err := k.get(ended, "csi-1", "shop", spec.Key{Algorithm: spec.ECDSA, Size: 256})
	if _, ok := key.(*ecdsa.PrivateKey); !ok || err != nil {
		t.Errorf("%T, %v", key, err)
	}
}
