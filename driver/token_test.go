package driver_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

const tokensKey = "csi.storage.k8s.io/serviceAccount.tokens"

func asPod(c *driver.Config) { c.Defaults.AsPod = true }

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
	expires := time.Now().Add(6 * time.Second)
	v := withToken(tokens("", "first", 5*time.Second))
	target := n.publish(v)
	first := pair(t, target)
	until(t, "the token expires", func() bool { return time.Now().After(expires) })
	n.renew(v)
	until(t, "the renewal waits", func() bool {
		f := n.record(v).Failure
		return f != nil && strings.Contains(f.Reason, "there is no fresh token of the pod's service account")
	})
	again := withToken("SECRET-TOKEN") // A call whose token is of no use does no harm to a pair that is valid.
	again.Attributes = v.Attributes
	n.publish(again)
	again.Secrets[tokensKey] = tokens("", "second", time.Hour)
	n.publish(again)
	until(t, "the renewal", func() bool { return !pair(t, target).Equal(first) })
	asked := n.signer.asked()
	if len(asked) != 2 || asked[0].Token != "first" || asked[1].Token != "second" {
		t.Errorf("%d requests", len(asked))
	}
}

// One volume asks as its pod, by a profile, where the others do not, whose tokens are not kept. Its author alone can't say so.
func TestAVolumeThatAsksAsThePod(t *testing.T) {
	asking := &volume.Profiles{Profiles: spec.Profiles{Profiles: map[string]spec.Profile{
		"asking": {"use-token-request": "true"},
	}}}
	n := newNode(t, func(c *driver.Config) { c.Profiles = &someProfiles{now: asking} })
	refused := withToken(tokens("", "SECRET", time.Hour), "csi.mayfly.dev/use-token-request=true")
	_, err := n.Publish(t.Context(), n.driver, refused)
	if want := "csi.mayfly.dev/use-token-request is true, and no volume asks as its pod unless the operator of this driver says so"; err == nil || !kubelet.Final(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
	n.publish(withToken(tokens("", "SECRET", time.Hour), "csi.mayfly.dev/profile=asking"))
	other := withToken(tokens("", "SECRET", time.Hour))
	other.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	n.publish(other)
	if asked := n.signer.asked(); len(asked) != 2 || asked[0].Token != "SECRET" || asked[1].Token != "" {
		t.Errorf("asked %d times", len(asked))
	}
}

// The operator takes back --use-token-request: what a running pod has does not depend on today's flags.
func TestAVolumeThatMightAskAsThePod(t *testing.T) {
	might := true
	n := newNode(t, func(c *driver.Config) { c.Defaults.AsPod = might })
	v := withToken(tokens("", "SECRET", time.Hour), "csi.mayfly.dev/use-token-request=true", "csi.mayfly.dev/duration=4s")
	target := n.publish(v)
	might = false
	n.restart()
	before := pair(t, target)
	n.publish(v) // The kubelet brings the token again.
	until(t, "a renewal", func() bool { return !pair(t, target).Equal(before) })
	for _, r := range n.signer.asked() {
		if r.Token != "SECRET" {
			t.Errorf("asked with %q", string(r.Token))
		}
	}
}

func TestCallsWithoutAToken(t *testing.T) {
	n := newNode(t, asPod)
	const want = `there is no fresh token of the pod's service account, with which this driver asks (use-token-request): the kubelet brings one with its next call, ` +
		`if the CSIDriver object has tokenRequests: [{audience: ""}] and requiresRepublish: true`
	n.fails(web(), want)
	n.fails(withToken("SECRET-TOKEN"), want)
	n.fails(withToken(tokens("vault", "SECRET-TOKEN", time.Hour)), want) // It is not for the API server.
	n.publish(withToken(tokens("", "late", time.Hour)))
	if got := len(n.signer.asked()); got != 1 || strings.Contains(n.log.String(), "SECRET") {
		t.Errorf("%d requests", got)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", n.signer.asked(), n.signer.asked()[0], n.signer.asked()[0], n.signer.asked()[0].Token); strings.Contains(text, "late") {
		t.Error("a request shows its token")
	}
}

// The driver is started with --signer=pod-certificate: a volume that it would not take now goes on, and whoever signs says what is wrong.
func TestAVolumeOfAnotherSigner(t *testing.T) {
	var other bool
	n := newNode(t, func(c *driver.Config) { c.Defaults.PodCertificates = other })
	v := web("csi.mayfly.dev/duration=4s")
	target := n.publish(v)
	other = true
	n.restart()
	before := pair(t, target)
	until(t, "a renewal", func() bool { return !pair(t, target).Equal(before) })
	n.publish(v)
	for _, r := range n.signer.asked() {
		if r.Volume != v.ID() {
			t.Errorf("volume %s asks as %q", v.ID(), r.Volume)
		}
	}
	n.unpublish(v)
	_, err := n.Publish(t.Context(), n.driver, v)
	if want := "csi.mayfly.dev/duration is 4s, and this driver asks by PodCertificateRequests"; err == nil || !kubelet.Final(err) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}
