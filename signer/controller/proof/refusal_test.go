package proof

import (
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// A denial is as long as an event may be.
func TestLongDenial(t *testing.T) {
	if got := Denied(Refuse(NoVolume, "%s", strings.Repeat("a", 2000))).Message; len(got) != message.Longest {
		t.Error(len(got))
	}
}
