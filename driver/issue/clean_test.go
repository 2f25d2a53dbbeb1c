package issue

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
)

// forgetting is a signer whose requests are deleted when the test lets them be.
type forgetting struct {
	signer.Signer
	asked chan string
	goOn  chan struct{}
}

func (f forgetting) Forget(_ context.Context, attempt signer.Attempt) error {
	f.asked <- attempt.ID
	<-f.goOn
	return nil
}

// A request whose deletion takes long is not deleted once more by the next attempt.
func TestARequestIsDeletedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i, v := newVolume(t, time.Time{})
		f := forgetting{asked: make(chan string, 10), goOn: make(chan struct{})}
		i.Signer = f
		for _, finished := range [][]string{{"1"}, {"1", "2"}, {"1", "2", "3"}} {
			if err := v.Update(func(r *store.Record) { r.Finished = finished }); err != nil {
				t.Fatal(err)
			}
			i.Clean(v)
		}
		synctest.Wait()
		close(f.goOn)
		synctest.Wait()
		var asked []string
		for len(f.asked) > 0 {
			asked = append(asked, <-f.asked)
		}
		if slices.Sort(asked); !slices.Equal(asked, []string{"1", "2", "3"}) {
			t.Errorf("deleted %q", asked)
		}
		if left := v.Record().Finished; len(left) > 0 {
			t.Errorf("on record are %q", left)
		}
	})
}
