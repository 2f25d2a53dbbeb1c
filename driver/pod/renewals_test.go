package pod

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/mayfly-csi/mayfly/signer"
)

// Of an annotation that is no time the begin is kept, and told. One that was cut is never taken for a time.
func TestALongAnnotation(t *testing.T) {
	const begin, end = "2026-01-31T12:00:00.", "Z"
	for n, want := range map[int]bool{64: true, 65: false, 256 << 10: false} {
		text := begin + strings.Repeat("0", n-len(begin+end)) + end
		kept, err := onlyAnnotation(&metav1.PartialObjectMetadata{
			ObjectMeta: metav1.ObjectMeta{Name: "web-0", UID: "7d4f", Annotations: map[string]string{RenewAt: text, "other": text}},
		})
		if err != nil {
			t.Fatal(err)
		}
		a := annotations{last: map[string]annotation{}}
		a.renew = func(_ signer.Pod, at time.Time, err error) {
			if (err == nil) != want || at.IsZero() == want || err != nil && len(err.Error()) > 256 {
				t.Errorf("%d bytes: %s, %v", n, at, err)
			}
		}
		a.set(kept)
		if last := a.last["/web-0"]; len(last.text) > 64 {
			t.Errorf("%d bytes are kept", len(last.text))
		}
	}
}
