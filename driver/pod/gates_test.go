package pod_test

import (
	"context"
	"testing"

	"go.uber.org/goleak"

	"github.com/mayfly-csi/mayfly/driver/pod"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// late sees a pod in the moment in which a wait is ended.
type late struct{ pod.API }

func (late) Await(
	ctx context.Context, _ signer.Pod, ready func(volume.PodState) error,
) (volume.PodState, error) {
	<-ctx.Done()
	return volume.PodState{}, ready(volume.PodState{})
}

// A wait that ends with its volume leaves nothing for the next one of the id.
func TestAWaitThatEndsLate(t *testing.T) {
	g := pod.NewGates(late{}, func(string) { t.Error("it opened") })
	v := volume.Volume{Spec: spec.Spec{NeedsIP: true}}
	v.ID = "csi-1"
	g.Watch(v)
	g.Forget(v.ID)
	g.Close()
	if by := g.BlockedBy(v.ID); by != nil {
		t.Errorf("a volume that is forgotten is blocked by %v", by)
	}
}
