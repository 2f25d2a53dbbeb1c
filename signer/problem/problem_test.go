package problem_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/problem"
)

// The first problem leaves an event room for the number of the others.
func TestALongProblem(t *testing.T) {
	problems := problem.List{errors.New(strings.Repeat("ä", 9000)), errors.New("b")}
	if got := problems.Error(); len(got) > 880 || !strings.HasSuffix(got, "…; and 1 more") {
		t.Errorf("%d bytes: %s", len(got), got)
	}
}
