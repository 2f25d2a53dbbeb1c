package audit

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// A replica competes for the Lease.
type replica struct {
	*Holder
	*fixture
	out  bytes.Buffer
	kill context.CancelFunc
	gone sync.WaitGroup
}

// start starts a replica in a bubble of synctest.
func start(t *testing.T, api *fake.Clientset, name string) *replica {
	t.Helper()
	r := &replica{}
	r.fixture = open(t, "-", &r.out)
	r.Holder = NewHolder(api.CoordinationV1(), "mayfly-system", name, r.Log)
	ctx, cancel := context.WithCancel(t.Context())
	r.kill = cancel
	r.gone.Go(func() {
		if err := r.Start(ctx); err != nil {
			t.Error(err)
		}
	})
	return r
}

// end ends a replica, which gives the Lease back, and returns the gaps that it has recorded.
func (r *replica) end(t *testing.T) (gaps []Record) {
	t.Helper()
	r.kill()
	r.gone.Wait()
	synctest.Wait()
	r.Close()
	gaps, _ = written(t, r.out.Bytes())
	for _, g := range gaps {
		if g.Audit != Gap || g.Message == "" {
			t.Errorf("%+v", g)
		}
	}
	return gaps
}

// One replica at a time records certificates, and says since when none has.
func TestTheHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api, began := fake.NewClientset(), time.Now()
		first := start(t, api, "a")
		synctest.Wait()
		second := start(t, api, "b")
		time.Sleep(time.Minute)
		if !first.Holds() || second.Holds() {
			t.Errorf("the first %v, the second %v", first.Holds(), second.Holds())
		}
		stopped := time.Now()
		gaps := first.end(t)
		if first.Holds() || len(gaps) != 1 || !gaps[0].From.Equal(began) || gaps[0].To.Sub(began) > time.Second {
			t.Errorf("the first start: %+v", gaps)
		}
		time.Sleep(10 * time.Second)
		if !second.Holds() {
			t.Error("the second does not hold it")
		}
		gaps = second.end(t)
		early := stopped.Sub(gaps[0].From) // What the first one heard last is in the gap, too.
		if len(gaps) != 1 || early < leaseDuration-time.Second || early > leaseDuration+time.Second || gaps[0].To.Sub(stopped) > 5*time.Second {
			t.Errorf("after the stop at %s: %+v", stopped, gaps)
		}

		stopped = time.Now()
		time.Sleep(time.Hour) // There is none.
		third := start(t, api, "c")
		time.Sleep(10 * time.Second)
		gaps = third.end(t)
		if len(gaps) != 1 || gaps[0].From.Sub(stopped).Abs() > time.Minute || gaps[0].To.Sub(gaps[0].From) < 59*time.Minute {
			t.Errorf("after the restart: %+v", gaps)
		}
	})
}

// A replica that loses the API server records nothing more, goes on, and records the gap when it is back.
func TestTheHolderLosesItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset()
		var away sync.Map
		api.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			_, is := away.Load("away")
			return is, nil, errors.New("away")
		})
		r := start(t, api, "a")
		time.Sleep(5 * time.Minute)
		away.Store("away", true)
		lost := time.Now()
		time.Sleep(leaseDuration)
		if r.Holds() {
			t.Error("it still holds it")
		}
		time.Sleep(10 * time.Minute)
		away.Delete("away")
		time.Sleep(time.Minute)
		if !r.Holds() {
			t.Error("it does not hold it again")
		}
		gaps := r.end(t)
		if len(gaps) != 2 || gaps[1].From.Sub(lost).Abs() > time.Minute || gaps[1].To.Sub(gaps[1].From) < 10*time.Minute {
			t.Errorf("lost at %s: %+v", lost, gaps)
		}
	})
}

// The holder decides first. The others do where they know of no holder: none was seen, it has given the Lease back, has
// not renewed it, or the Lease can't be read.
func TestWhoDecidesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := fake.NewClientset()
		var dead, away atomic.Bool
		api.PrependReactor("*", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
			update, is := action.(clienttesting.UpdateAction)
			if is && dead.Load() {
				lease, _ := update.GetObject().(*coordinationv1.Lease)
				return *lease.Spec.HolderIdentity != "b", nil, errors.New("dead")
			}
			return away.Load(), nil, errors.New("away")
		})
		first := start(t, api, "a")
		if !first.First() {
			t.Error("nobody is known, and it waits")
		}
		synctest.Wait()
		second := start(t, api, "b")
		for range 10 {
			time.Sleep(time.Minute)
			if !first.First() || second.First() {
				t.Errorf("the first %v, the second %v", first.First(), second.First())
			}
		}
		dead.Store(true) // It is stopped hard.
		// client-go's competitor looks every retryPeriod, and up to 1.2 of them later: once to see the last renewal, and
		// once to see that it is old.
		time.Sleep(leaseDuration + 5*retryPeriod)
		if !second.First() || !second.Holds() {
			t.Error("the second waits for one that is gone")
		}
		first.end(t)
		dead.Store(false)

		third := start(t, api, "c")
		time.Sleep(time.Minute)
		if third.First() {
			t.Error("the third does not wait for the second")
		}
		away.Store(true)
		time.Sleep(leaseDuration + retryPeriod)
		if !third.First() {
			t.Error("the third waits for one of whom it hears nothing")
		}
		away.Store(false)
		time.Sleep(time.Minute)
		if second.First() == third.First() {
			t.Errorf("the second and the third: %v", second.First())
		}
		second.end(t)
		time.Sleep(5 * time.Second)
		if !third.First() {
			t.Error("the third waits for one that has given the Lease back")
		}
		third.end(t)
	})
}

func TestNoHolder(t *testing.T) {
	var none *Holder
	if none.Holds() || !none.First() || none.NeedLeaderElection() {
		t.Error("it holds the Lease, or waits for who does")
	}
}
