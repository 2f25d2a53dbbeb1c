package driver_test

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
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
	"github.com/mayfly-csi/mayfly/signer/chain"
	"github.com/mayfly-csi/mayfly/signer/spec"
	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// allNames has the driver serve under the names of cert-manager's drivers, too.
func allNames(c *driver.Config) {
	for _, name := range []string{spec.OldDriver, spec.SPIFFEDriver} {
		c.Names = append(c.Names, driver.Name{Name: name, Endpoint: filepath.Join(c.KubeletRoot, "plugins", name, "csi.sock")})
	}
	c.Defaults = volume.Defaults{Defaults: spec.Defaults{IssuerName: "mesh", IssuerKind: "ClusterIssuer", TrustDomain: "example.org"}}
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
	old.Attributes = theirs("duration=3s", "example.org/team=shop")
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
	first := certificate(t, publish(spec.OldDriver, old))
	if key, ok := first.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 2048 {
		t.Errorf("the old driver's key is a %T", first.PublicKey)
	}
	leaf := certificate(t, publish(spec.SPIFFEDriver, mesh))
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

// theirs are the attributes of a volume of csi-driver's dialect.
func theirs(edits ...string) map[string]string {
	attributes := map[string]string{"csi.cert-manager.io/issuer-name": "ca", "csi.cert-manager.io/dns-names": "web"}
	for _, e := range edits {
		key, value, _ := strings.Cut(e, "=")
		if !strings.Contains(key, "/") {
			key = spec.OldPrefix + key
		}
		attributes[key] = value
	}
	return attributes
}

// The last request of a volume stays in the dialects of cert-manager's drivers, and none in ours.
func TestRequestsThatADialectKeeps(t *testing.T) {
	n := newNode(t, allNames)
	kept := map[string]int{name: 0, spec.OldDriver: 1, spec.SPIFFEDriver: 1}
	volumes := map[string]kubelet.Volume{}
	for i, of := range slices.Sorted(maps.Keys(kept)) {
		v := web()
		v.UID = fmt.Sprintf("3b2f6a5e-0001-4c5e-9d3e-00000000000%d", i)
		switch of {
		case spec.OldDriver:
			v.Attributes = theirs()
		case spec.SPIFFEDriver:
			v.Attributes = nil
		}
		volumes[of] = v
		target, err := n.Publish(t.Context(), n.under(of), v)
		if err != nil {
			t.Fatal(err)
		}
		first := certificate(t, target)
		n.renew(v)
		until(t, "the renewal", func() bool { return !certificate(t, target).Equal(first) })
		until(t, "its end", func() bool { return n.record(v).Attempt == "" })
	}
	for of, v := range volumes {
		var asked []string
		for _, r := range n.signer.asked() {
			if r.Attempt.Pod.UID == v.UID {
				asked = append(asked, r.Attempt.ID)
			}
		}
		gone := asked[:len(asked)-kept[of]]
		until(t, of+": the requests before are deleted", func() bool {
			forgot := n.signer.forgot()
			return !slices.ContainsFunc(gone, func(id string) bool { return !slices.Contains(forgot, id) })
		})
		if last := asked[len(asked)-1]; kept[of] > 0 && slices.Contains(n.signer.forgot(), last) {
			t.Errorf("%s: the last request is deleted", of)
		}
	}
}

// A driver of another name may have a dialect, too. What a volume was when its pod started it stays, whatever the flags say later.
func TestADialectOfAnotherName(t *testing.T) {
	const corp = "certs.corp.example"
	dialect := spec.CSIDriver
	n := newNode(t, func(c *driver.Config) {
		c.Names = append(c.Names, driver.Name{Name: corp, Dialect: dialect, Endpoint: filepath.Join(c.KubeletRoot, "plugins", corp, "csi.sock")})
	})
	v := web()
	v.Attributes = theirs()
	target, err := n.Publish(t.Context(), n.under(corp), v)
	if err != nil {
		t.Fatal(err)
	}
	for _, dialect = range []spec.Dialect{spec.CSIDriver, spec.Mayfly, ""} {
		n.restart()
		before := certificate(t, target)
		n.renew(v)
		until(t, "the renewal", func() bool { return !certificate(t, target).Equal(before) })
		if key, ok := certificate(t, target).PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 2048 {
			t.Errorf("under the dialect %q the key is a %T", dialect, key)
		}
	}
	other := v
	other.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	_, err = n.Publish(t.Context(), n.under(corp), other)
	const want = "csi.cert-manager.io/dns-names is not an attribute of this driver: use csi.mayfly.dev/dns-names; " +
		"csi.cert-manager.io/issuer-name is not an attribute of this driver: use csi.mayfly.dev/issuer-name"
	if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != want {
		t.Errorf("a new volume: %v", err)
	}
}

// csi-driver-spiffe passes its file of CA certificates on as it is, and all that its flags say of all volumes a profile says.
func TestAProfileOfADriver(t *testing.T) {
	n := newTrusting(t, func(c *driver.Config) {
		allNames(c)
		c.Defaults.TrustFiles, c.Defaults.Trust = []string{"corp"}, "file:corp"
		c.Profiles = &someProfiles{now: &volume.Profiles{Profiles: spec.Profiles{
			Profiles: map[string]spec.Profile{"mesh": {
				"certificate-file": "cert.pem", "privatekey-file": "key.pem", "ca-file": "roots.pem", "duration": "2h", "example.org/team": "mesh",
			}},
			Drivers: map[string]string{spec.SPIFFEDriver: "mesh"},
		}}}
	})
	a, b := root(t, "a", 0), root(t, "b", 0)
	text := "# Corp\r\n" + string(chain.Encode(a))
	n.write([]byte(text))
	v := web()
	v.Attributes = nil
	target, err := n.Publish(t.Context(), n.under(spec.SPIFFEDriver), v)
	if err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, target, "roots.pem")); got != text {
		t.Errorf("roots.pem is %q", got)
	}
	for _, file := range []string{"cert.pem", "key.pem"} {
		if len(read(t, target, file)) == 0 {
			t.Errorf("%s is empty", file)
		}
	}
	got := n.signer.asked()[0]
	if got.Duration != 2*time.Hour || got.Annotations["example.org/team"] != "mesh" || got.Annotations["spiffe.csi.cert-manager.io/identity"] == "" {
		t.Errorf("%+v", got)
	}
	for _, text := range []string{text + "# another comment", "# b\n" + string(chain.Encode(b, b)), string(chain.Encode(a, b))} {
		n.write([]byte(text))
		until(t, "the new text", func() bool { return string(read(t, target, "roots.pem")) == text })
	}
	ours := web()
	ours.UID = "3b2f6a5e-0001-4c5e-9d3e-000000000002"
	n.write([]byte(text))
	until(t, "the first text", func() bool { return string(read(t, target, "roots.pem")) == text })
	n.has(n.publish(ours), a)
}

// What cert-manager's drivers overlook does not keep a pod from its start. Its author reads of it.
func TestAttributesThatAreOverlooked(t *testing.T) {
	t.Parallel()
	for name, key := range map[string]string{spec.OldDriver: "csi.cert-manager.io/dns-name", spec.SPIFFEDriver: "spiffe.csi.cert-manager.io/fsgroup"} {
		t.Run(name, func(t *testing.T) {
			events := make(chan string, 100)
			n := newNode(t, func(c *driver.Config) {
				allNames(c)
				c.Events = eventFunc(func(message string) { events <- message })
			})
			v := web()
			v.Attributes = map[string]string{key: "web"}
			if name == spec.OldDriver {
				v.Attributes = theirs(key + "=web")
			}
			if _, err := n.Publish(t.Context(), n.under(name), v); err != nil {
				t.Fatal(err)
			}
			want := fmt.Sprintf("shop/web-0 AttributeOverlooked: volume tls: overlooked, as cert-manager's driver does it: %q is not a known attribute: ", key)
			until(t, "an event", func() bool { return len(events) > 0 })
			if got := <-events; !strings.HasPrefix(got, want) {
				t.Errorf("got  %s\nwant %s", got, want)
			}
		})
	}
}

// What a volume means depends on the driver's name.
func TestACallUnderAnotherDriversName(t *testing.T) {
	n := newNode(t, allNames)
	v := web()
	target := n.publish(v)
	before := pair(t, target)
	old := n.under(spec.OldDriver)
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
