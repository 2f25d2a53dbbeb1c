package signer_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/message"
)

// A reason is cut, and its cause is not.
func TestLongReasons(t *testing.T) {
	cause := errors.New(strings.Repeat("a", message.LongestReason))
	if err := signer.Errorf(signer.Denied, "%w", cause); err.Reason != cause.Error() || !errors.Is(err, cause) {
		t.Errorf("%d bytes at the limit", len(err.Reason))
	}
	err := signer.Errorf(signer.Denied, "%wa", cause)
	if len(err.Reason) != message.LongestReason || !strings.HasSuffix(err.Reason, "…") || !errors.Is(err, cause) {
		t.Errorf("%d bytes over the limit: %.20s…", len(err.Reason), err.Reason)
	}
}
