package decide

import (
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// A denial is as long as an event may be.
func TestLongDenial(t *testing.T) {
	if got := deny(NoVolume, "%s", strings.Repeat("a", 2000)).Message; len(got) != message.Longest {
		t.Error(len(got))
	}
}

func TestWhatMayEnd(t *testing.T) {
	for reason, want := range map[string]bool{
		NotAllowed: true, IPNotProved: true, NotUnderstood: true, NotTheVolumes: true, Verified: false, OtherNode: false, PodNotFound: false, "": false,
	} {
		if got := MayEnd(reason); got != want {
			t.Errorf("%s: %t", reason, got)
		}
	}
}
