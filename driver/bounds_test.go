package driver_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/signer"
)

// Of what an issuer writes a pod's record, the log, the answer and the volume's health have the begin.
func TestALongReason(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.from(refuse(signer.Denied, strings.Repeat("nö ", 300<<10)))
	_, err := n.Publish(t.Context(), n.driver, v)
	answer := status.Convert(err).Message()
	if len(answer) > 1024 || !strings.HasPrefix(answer, "request denied: nö nö ") || !strings.Contains(answer, "…") {
		t.Errorf("the answer has %d bytes: %.100s", len(answer), answer)
	}
	if reason := n.record(v).Failure.Reason; len(reason) > 768 || !strings.HasSuffix(reason, "…") {
		t.Errorf("the reason on record has %d bytes: %.100s", len(reason), reason)
	}
	for range 3 { // The volume backs off: the reason comes again, with the times.
		_, err = n.Publish(t.Context(), n.driver, v)
	}
	answer = status.Convert(err).Message()
	if len(answer) > 1024 || !strings.Contains(answer, "the next try is at ") {
		t.Errorf("the answer has %d bytes: %.100s", len(answer), answer)
	}
	health, err := n.Health(t.Context(), n.driver, v)
	if text := fmt.Sprint(health); err != nil || len(text) > 1200 || !strings.Contains(text, "nö nö") {
		t.Errorf("%v; health has %d bytes", err, len(text))
	}
	info, err := os.Stat(n.inState(v, "record.json"))
	if err != nil || info.Size() > 8<<10 {
		t.Errorf("%v; the record has %d bytes", err, info.Size())
	}
	if log := n.log.String(); len(log) > 16<<10 {
		t.Errorf("the log has %d bytes", len(log))
	}
	n.unpublish(v)
}

// An error that is no signer's, such as the kernel's with a path, has the same bounds.
func TestALongError(t *testing.T) {
	n := newNode(t, nil)
	v := web()
	n.signer.from(func(context.Context, signer.Request, signer.Signer) (signer.Issued, error) {
		return signer.Issued{}, errors.New(strings.Repeat("no ", 300<<10))
	})
	_, err := n.Publish(t.Context(), n.driver, v)
	if answer := status.Convert(err).Message(); len(answer) != 768 || !strings.HasSuffix(answer, "…") {
		t.Errorf("the answer has %d bytes: %.100s", len(answer), answer)
	}
	if reason := n.record(v).Failure.Reason; len(reason) != 768 || !strings.HasSuffix(reason, "…") {
		t.Errorf("the reason on record has %d bytes: %.100s", len(reason), reason)
	}
	if log := n.log.String(); len(log) > 16<<10 {
		t.Errorf("the log has %d bytes", len(log))
	}
	n.unpublish(v)
}

// A pod may have its RSA key, and the next one gets another.
func TestRSAKeys(t *testing.T) {
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/key-algorithm=RSA", "csi.mayfly.dev/key-size=2048")
	first := pair(t, n.publish(v))
	n.unpublish(v)
	second := pair(t, n.publish(v))
	if first.PublicKeyAlgorithm.String() != "RSA" || string(first.RawSubjectPublicKeyInfo) == string(second.RawSubjectPublicKeyInfo) {
		t.Errorf("%s, and the same again", first.PublicKeyAlgorithm)
	}
	n.unpublish(v)
}
