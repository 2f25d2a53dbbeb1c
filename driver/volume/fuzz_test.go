package volume_test

import (
	"crypto/ed25519"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"maps"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/problem"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// FuzzParse: an error is fit for an event, and what is valid makes a request that says the same, comes back from a record, and is the same
// for the controller.
func FuzzParse(f *testing.F) {
	for _, d := range []dialect{ours, old, mesh} {
		for _, r := range matrix() {
			for _, c := range r.cells {
				with, value, _ := strings.Cut(cmpOr(c.with, r.with), "=")
				f.Add(d.driver, d.prefix+r.name, c.value, d.prefix+with, value, "1000", "context=x", "secret", true, "example.org", "", "ca")
			}
		}
	}
	for _, a := range volume.Attributes() {
		f.Add("", spec.Prefix+a.Name, a.Example, spec.OldPrefix+a.Name, a.Example, "-1", "", "", false, "", "/${POD_UID}", "")
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	f.Fuzz(func(t *testing.T, driver, key1, value1, key2, value2, group, flag, password string, secrets bool, domain, path, issuer string) {
		defaults := volume.Defaults{Defaults: spec.Defaults{IssuerName: issuer, TrustDomain: domain, SPIFFEPath: path}}
		if defaults.Check() != nil {
			return
		}
		a := asked(nil)
		if driver != spec.SPIFFEDriver {
			a = asked(map[string]string{"issuer-name": "ca", "dns-names": "web"})
		}
		a.Driver, a.Group, a.Password, a.Secrets, a.IPs = driver, group, password, secrets, []string{"10.0.0.1"}
		if flag != "" {
			a.MountFlags = []string{flag}
		}
		if !strings.HasPrefix(key1, "csi.storage.k8s.io/") && !strings.HasPrefix(key2, "csi.storage.k8s.io/") { // The kubelet's own.
			a.Attributes[key1], a.Attributes[key2] = value1, value2
		}
		v, err := volume.Parse(a, defaults)
		if err != nil {
			fitForAnEvent(t, err)
			return
		}
		controllers, err := spec.Parse(a.Asked, defaults.Defaults)
		if err != nil || !reflect.DeepEqual(controllers, v.Spec) {
			t.Errorf("%+v, and the controller has %+v (%v)", v.Spec, controllers, err)
		}
		valid(t, v)
		comesBack(t, v)
		says(t, v, key)
	})
}

func fitForAnEvent(t *testing.T, err error) {
	var problems problem.List
	if !errors.As(err, &problems) || len(problems) == 0 {
		t.Errorf("an error without a reason: %v", err)
	}
	if text := err.Error(); len(text) > 1024-144 || !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		t.Errorf("%d bytes: %q", len(text), text)
	}
}

func valid(t *testing.T, v volume.Volume) {
	for name := range v.Files {
		if name == "" || len(name) > 255 || strings.ContainsAny(name, "/\x00") ||
			name == "." || strings.HasPrefix(name, "..") || strings.HasPrefix(name, ".") && !v.Dialect.Lenient() {
			t.Errorf("file name %q", name)
		}
	}
	if v.Duration < time.Second || v.RenewBefore < 0 || v.Issuer.Name == "" || v.Issuer.Kind == "" || v.Issuer.Group == "" || len(v.Files) == 0 || len(v.Usages) == 0 {
		t.Errorf("not valid: %+v", v)
	}
	if g := v.Owner.Group; g != nil && (*g < 0 || *g >= 1<<32-1) {
		t.Errorf("group %d", *g)
	}
}

// says demands that the volume's request parses back to its names.
func says(t *testing.T, v volume.Volume, key ed25519.PrivateKey) {
	der, err := v.CSR(key)
	if err != nil {
		t.Fatalf("%v\n%+v", err, v)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatalf("%v\n%+v", err, v)
	}
	if !slices.Equal(csr.DNSNames, v.DNSNames) || joined(csr.URIs) != joined(v.URIs) || !slices.EqualFunc(csr.IPAddresses, v.IPs, net.IP.Equal) {
		t.Errorf("%q %q %v, from %q %q %v", csr.DNSNames, csr.URIs, csr.IPAddresses, v.DNSNames, v.URIs, v.IPs)
	}
	if got := fields(csr.Subject); v.RawSubject == nil && !maps.Equal(got, fields(v.Subject)) {
		t.Errorf("subject %v, from %v", got, fields(v.Subject))
	}
	if v.RawSubject != nil && string(csr.RawSubject) != string(v.RawSubject) {
		t.Errorf("subject %x, from %x", csr.RawSubject, v.RawSubject)
	}
}

// fields are a subject's: those of one kind are a set, whose order is not kept.
func fields(n pkix.Name) map[string]string {
	kinds := map[string]string{"CN": n.CommonName, "SERIALNUMBER": n.SerialNumber}
	for kind, values := range map[string][]string{
		"C": n.Country, "O": n.Organization, "OU": n.OrganizationalUnit, "ST": n.Province, "L": n.Locality, "STREET": n.StreetAddress, "POSTALCODE": n.PostalCode,
	} {
		kinds[kind] = strings.Join(slices.Sorted(slices.Values(values)), "\x00")
	}
	return kinds
}

func FuzzParseProfiles(f *testing.F) {
	f.Add(profiles, "internal", "shop", "web-0")
	f.Add("profiles: {a: {trust: 'config-map:a/b', renew-window: 'Mon 02:00-04:00'}}\nnamespaces: {'*': a}", "", "", "")
	f.Add("profiles: {a: {dns-names: '${POD_IP'}}", "x", "y", "z")
	f.Fuzz(func(t *testing.T, text, issuer, namespace, pod string) {
		p, err := volume.ParseProfiles(map[string]string{spec.ProfilesKey: text, "issuer-name": issuer})
		if err != nil {
			fitForAnEvent(t, err)
			return
		}
		a := asked(map[string]string{"dns-names": "web"})
		a.Attributes["csi.storage.k8s.io/pod.namespace"], a.Attributes["csi.storage.k8s.io/pod.name"] = namespace, pod
		v, err := volume.Parse(a, volume.Defaults{Defaults: spec.Defaults{Live: &p.Profiles, IssuerName: "ca", TrustDomain: "example.org"}})
		if err != nil {
			fitForAnEvent(t, err)
			return
		}
		// What the record has of it is understood as well.
		a.Profile = v.Profile
		if again, err := volume.Parse(a, volume.Defaults{Defaults: spec.Defaults{IssuerName: "ca", TrustDomain: "example.org"}, AnyTrustFile: true}); err != nil || again.Issuer != v.Issuer {
			t.Errorf("from the record: %+v, not %+v (%v)", again.Issuer, v.Issuer, err)
		}
	})
}
