package driver_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens"

func asPod(c *driver.Config) { c.AsPod = true }

// tokens is what the kubelet passes on, for one audience.
func tokens(audience, value string, lifetime time.Duration) string {
	return fmt.Sprintf(`{%q:{"token":%q,"expirationTimestamp":%q}}`, audience, value, time.Now().Add(lifetime).UTC().Format(time.RFC3339Nano))
}

func withToken(text string, edits ...string) kubelet.Volume {
	v := web(edits...)
	v.Secrets = map[string]string{tokensKey: text}
	return v
}

func TestAskingAsThePod(t *testing.T) {
	n := newNode(t, asPod)
	v := withToken(tokens("", "SECRET-1", time.Hour), "csi.mayfly.dev/duration=4s", "csi.mayfly.dev/layout=pem,bundle,pkcs12")
	v.Attributes[tokensKey] = tokens("", "SECRET-0", time.Hour) // The secrets win.
	target := n.publish(v)
	first := pair(t, target)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	for _, r := range n.signer.asked() {
		if r.Token != "SECRET-1" {
			t.Errorf("asked with %q", r.Token)
		}
	}
	record, err := os.ReadFile(n.inState(v, "record.json"))
	if err != nil || strings.Contains(string(record)+n.log.String(), "SECRET") {
		t.Errorf("a token was written down: %v", err)
	}
}

// A renewal that is due when the token has expired waits for the next call of the kubelet.
func TestARenewalWaitsForAToken(t *testing.T) {
	n := newNode(t, asPod)
	v := withToken(tokens("api", "first", 1500*time.Millisecond), "csi.mayfly.dev/duration=5s") // An audience by its name.
	target := n.publish(v)
	first := pair(t, target)
	until(t, "the renewal waits", func() bool {
		f := n.record(v).Failure
		return f != nil && strings.Contains(f.Reason, "there is no fresh token of the pod's service account") && f.Count == 1
	})
	again := withToken(tokens("api", "second", time.Hour))
	again.Attributes = v.Attributes
	n.publish(again)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	asked := n.signer.asked()
	if len(asked) != 2 || asked[0].Token != "first" || asked[1].Token != "second" {
		t.Errorf("%d requests", len(asked))
	}
}

func TestCallsWithoutAToken(t *testing.T) {
	n := newNode(t, asPod)
	n.fails(web(), `there is no fresh token of the pod's service account, with which this driver asks (--use-token-request): the kubelet brings one with its next call, `+
		`if the CSIDriver object has tokenRequests: [{audience: ""}] and requiresRepublish: true`)
	n.publish(withToken(tokens("", "late", time.Hour)))
	other := withToken("SECRET-TOKEN")
	other.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	_, err := n.Publish(t.Context(), n.driver, other)
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), tokensKey+" is not the JSON of the kubelet") || strings.Contains(err.Error(), "SECRET") {
		t.Errorf("%v", err)
	}
	if got := len(n.signer.asked()); got != 1 {
		t.Errorf("%d requests", got)
	}
}
