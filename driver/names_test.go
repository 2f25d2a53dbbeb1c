package driver_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mayfly-csi/mayfly/driver"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// allNames has the driver serve under the names of cert-manager's drivers, too.
func allNames(c *driver.Config) {
	for _, name := range []string{volume.OldDriver, volume.SPIFFEDriver} {
		c.Names = append(c.Names, driver.Name{Name: name, Endpoint: filepath.Join(c.KubeletRoot, "plugins", name, "csi.sock")})
	}
	c.Defaults = volume.Defaults{IssuerName: "mesh", IssuerKind: "ClusterIssuer", TrustDomain: "example.org"}
}

// under is the driver under another of its names.
func (n *node) under(name string) kubelet.Driver {
	n.t.Helper()
	d, err := n.Register(n.t.Context(), name)
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = d.Close() })
	return d
}

// One driver takes the place of three. What was published under a name stays what it is over a restart.
func TestNamesOfTheOldDrivers(t *testing.T) {
	n := newNode(t, allNames)
	ours, old, mesh := web(), web(), web()
	old.UID, mesh.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002", "3b2f6a5e-0001-4c5e-9d3e-000000000003"
	// That it is the old driver's, its name alone says.
	old.Attributes = map[string]string{"csi.mayfly.dev/issuer-name": "ca", "csi.mayfly.dev/dns-names": "web", "csi.mayfly.dev/duration": "3s", "example.org/team": "shop"}
	mesh.Attributes = map[string]string{"spiffe.csi.cert-manager.io/fs-group": "2000"}
	n.publish(ours)
	n.signer.from(func(ctx context.Context, req signer.Request, ca signer.Signer) (signer.Issued, error) {
		req.Duration = min(req.Duration, 3*time.Second) // A signer may give less.
		return ca.Sign(ctx, req)
	})
	publish := func(name string, v kubelet.Volume) string {
		target, err := n.Publish(t.Context(), n.under(name), v)
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	first := certificate(t, publish(volume.OldDriver, old))
	if key, ok := first.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 2048 {
		t.Errorf("the old driver's key is a %T", first.PublicKey)
	}
	leaf := certificate(t, publish(volume.SPIFFEDriver, mesh))
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://example.org/ns/shop/sa/web" || leaf.DNSNames != nil || leaf.Subject.String() != "" {
		t.Errorf("a certificate for %v, %v, %s", leaf.URIs, leaf.DNSNames, leaf.Subject)
	}
	n.restart()
	until(t, "the renewals", func() bool {
		return !certificate(t, n.Target(old)).Equal(first) && !certificate(t, n.Target(mesh)).Equal(leaf)
	})
	if next := certificate(t, n.Target(mesh)); len(next.URIs) != 1 || next.URIs[0].String() != leaf.URIs[0].String() {
		t.Errorf("after a restart the pod has a certificate for %v", next.URIs)
	}
	if _, ok := certificate(t, n.Target(old)).PublicKey.(*rsa.PublicKey); !ok {
		t.Error("after a restart the old driver's volume has another kind of key")
	}
	asked := n.signer.asked()
	ofMesh := slices.IndexFunc(asked, func(r signer.Request) bool { return r.Attempt.Pod.UID == mesh.UID })
	if got := asked[1].Annotations["example.org/team"]; got != "shop" {
		t.Errorf("the annotation is %q", got)
	}
	if got := asked[ofMesh]; got.Issuer.Name != "mesh" || got.Issuer.Kind != "ClusterIssuer" || got.Issuer.Group != "cert-manager.io" ||
		got.Annotations["spiffe.csi.cert-manager.io/identity"] != "spiffe://example.org/ns/shop/sa/web" || got.Duration != time.Hour {
		t.Errorf("%+v", got)
	}
}

func TestAMistakeUnderTheSPIFFEDriversName(t *testing.T) {
	n := newNode(t, allNames)
	v := web()
	v.Attributes = map[string]string{"spiffe.csi.cert-manager.io/fsgroup": "2000"}
	_, err := n.Publish(context.Background(), n.under(volume.SPIFFEDriver), v)
	if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "spiffe.csi.cert-manager.io knows spiffe.csi.cert-manager.io/fs-group") {
		t.Errorf("%v", err)
	}
	n.empty()
}

// What a volume means depends on the driver's name.
func TestACallUnderAnotherDriversName(t *testing.T) {
	n := newNode(t, allNames)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	old := n.under(volume.OldDriver)
	for range 2 {
		_, err := n.Publish(t.Context(), old, v)
		want := "volume " + v.ID() + " is one of driver csi.mayfly.dev, and the call came to csi.cert-manager.io"
		if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
		unmount(t, target)
		n.publish(v)
	}
	if !pair(t, target).Equal(before) {
		t.Error("the pair changed")
	}
}

// certificate is the leaf in tls.crt.
func certificate(t *testing.T, target string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(target, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}
