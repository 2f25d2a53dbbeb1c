package driver_test

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/faults"
)

// TestTroubleshooting makes the faults of docs/troubleshooting.md that need no API server: volumes that are written
// wrong, broken nodes and answers.
func TestTroubleshooting(t *testing.T) {
	t.Parallel()
	rows := []struct {
		message string
		made    func(t *testing.T) error
	}{
		{"… is required: the name of the issuer that signs", asking("csi.mayfly.dev/issuer-name=")},
		{"… is missing: ask for at least one of dns-names, uri-sans, spiffe, ip-sans, common-name and literal-subject", asking("csi.mayfly.dev/dns-names=")},
		{"… is not a known attribute: did you mean …?", asking("csi.mayfly.dev/dns-name=web.test")},
		{"… is not a known attribute", asking("csi.mayfly.dev/colour=red")},
		{"… is not an attribute of this driver: use …", asking("csi.cert-manager.io/dns-names=web.test")},
		{"… has an unknown variable …: known are …", asking("csi.mayfly.dev/dns-names=${POD_NAEM}.test")},
		{"… is …, which is not a duration such as 30m or 24h", asking("csi.mayfly.dev/duration=90d")},
		{"… gives two files the name …: …, and …", asking("csi.mayfly.dev/layout=pem", "csi.mayfly.dev/ca-file=tls.crt")},
		{"… is true, and no volume asks as its pod unless the operator of this driver says so, by --use-token-request or a profile: leave it out", asking("csi.mayfly.dev/use-token-request=true")},
		{"… is …, and this driver has no profiles: its operator sets --config-map", asking("csi.mayfly.dev/profile=web")},
		{"… has …: this driver has no files of CA certificates: its operator sets --trust-file", asking("csi.mayfly.dev/trust=file:corp")},
		{"keystore-password of nodePublishSecretRef has … characters: a JKS needs at least 6", shortPassword},
		{"readOnly is not true: set readOnly: true in the pod's csi volume, for nobody but the driver writes certificates", writable},
		{"signing failed: unusable certificate from … …: the certificate lacks the … … that was asked for", answered(func(c *x509.Certificate) { c.DNSNames = []string{"other"} })},
		{"signing failed: unusable certificate from … …: the certificate expired at …", answered(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) })},
		{"not signed yet: the certificate is not valid before …: the clocks of the signer and of this node differ", answered(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Hour / 2) })},
		{"make the volume's directory: mkdir …: no space left on device", fullStateDirectory},
		{"the target's directory … does not exist: the kubelet has made it, and the driver must see it (--kubelet-root, and the mounts of the driver's pod)", missingDirectory},
		{"target_path … is not in …, where the kubelet has them", foreignTarget},
		{"another operation is at work on this volume: …", twoCalls},
		{"not signed yet: there is no fresh token of the pod's service account, with which this driver asks (use-token-request): the kubelet brings one with its next call, if the CSIDriver object has tokenRequests: [{audience: \"\"}] and requiresRepublish: true", noToken},
		{"not signed yet: the driver's operator distrusts every CA certificate of the volume", allDistrusted},
	}
	var messages []string
	for _, row := range rows {
		messages = append(messages, row.message)
	}
	faults.Hold(t, "../docs/troubleshooting.md", "TestTroubleshooting", messages)
	for _, row := range rows {
		t.Run(row.message, func(t *testing.T) {
			if got := faults.Reason(status.Convert(row.made(t)).Message()); !faults.Match(row.message, got) {
				t.Errorf("got  %s\nwant %s", got, row.message)
			}
		})
	}
}

// asking returns the error of a pod that asks for this.
func asking(attributes ...string) func(*testing.T) error {
	return func(t *testing.T) error {
		n := newNode(t, nil)
		_, err := n.Publish(t.Context(), n.driver, web(attributes...))
		return err
	}
}

// shortPassword returns the error of a keystore whose Secret has too short a password.
func shortPassword(t *testing.T) error {
	n := newNode(t, nil)
	v := web("csi.mayfly.dev/layout=jks")
	v.Secrets = map[string]string{"keystore-password": "12345"}
	_, err := n.Publish(t.Context(), n.driver, v)
	return err
}

// writable returns the error of a volume that is not read-only.
func writable(t *testing.T) error {
	n := newNode(t, nil)
	req := n.Request(web())
	req.Readonly = false
	_, err := n.driver.NodePublishVolume(t.Context(), req)
	return err
}

// answered returns the error of a pod whose issuer sends another certificate than the one that was asked for.
func answered(edit func(*x509.Certificate)) func(*testing.T) error {
	return func(t *testing.T) error {
		n := newNode(t, nil)
		n.signer.from(other(edit))
		_, err := n.Publish(t.Context(), n.driver, web())
		return err
	}
}

// fullStateDirectory returns the error where there is no room for another volume's directory.
func fullStateDirectory(t *testing.T) error {
	n := newNode(t, nil)
	must(t, unix.Mount("", n.stateDir(), "", unix.MS_REMOUNT|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "nr_inodes=1"))
	_, err := n.Publish(t.Context(), n.driver, web())
	return err
}

// missingDirectory returns the error where the driver does not see what the kubelet has made.
func missingDirectory(t *testing.T) error {
	n := newNode(t, nil)
	_, err := n.driver.NodePublishVolume(t.Context(), n.Request(web()))
	return err
}

// foreignTarget returns the error where the kubelet has another root than the driver knows.
func foreignTarget(t *testing.T) error {
	n := newNode(t, nil)
	req := n.Request(web())
	req.TargetPath = "/var/snap/kubelet/pods/1/volumes/kubernetes.io~csi/tls/mount"
	_, err := n.driver.NodePublishVolume(t.Context(), req)
	return err
}

// twoCalls returns the error of a call that comes while another one is under way.
func twoCalls(t *testing.T) error {
	n := newNode(t, nil)
	entered := make(chan struct{})
	n.signer.say(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		close(entered)
		return hang(ctx, req, ca)
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = n.Publish(t.Context(), n.driver, web())
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second) // The call ends 3 s before.
	defer cancel()
	_, err := n.Publish(ctx, n.driver, web())
	n.unpublish(web())
	<-ended
	return err
}

// noToken returns the error of a pod that asks as itself where the CSIDriver object passes no tokens on.
func noToken(t *testing.T) error {
	n := newNode(t, asPod)
	_, err := n.Publish(t.Context(), n.driver, web())
	return err
}

// allDistrusted returns the error of a pod that would have no CA certificate but distrusted ones.
func allDistrusted(t *testing.T) error {
	n := newDistrusting(t)
	a := root(t, "a", 0)
	n.have(a)
	n.distrust(a)
	v := web(trusts + "file:corp")
	ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
	defer cancel()
	_, err := n.Publish(ctx, n.driver, v)
	n.unpublish(v)
	return err
}
