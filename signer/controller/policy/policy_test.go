package policy

import (
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// asks is a volume of pod shop/web with the attributes, as the driver parses it: "dns-names=a,b".
func asks(t *testing.T, pod signer.Pod, prefix string, attributes ...string) spec.Spec {
	t.Helper()
	all := map[string]string{prefix + "issuer-name": "ca"}
	for _, a := range attributes {
		key, value, _ := strings.Cut(a, "=")
		all[prefix+key] = value
	}
	driver := spec.Driver
	if prefix == spec.OldPrefix {
		driver = spec.OldDriver
	}
	v, err := spec.Parse(spec.AskedBy(pod, driver, all), spec.Defaults{TrustDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func web() signer.Pod {
	return signer.Pod{Namespace: "shop", Name: "web", UID: "1", ServiceAccount: "clerk"}
}

func identity() decide.Identity {
	return decide.Identity{
		SPIFFEID: &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/shop/sa/clerk"},
		IPs:      []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
	}
}

func TestWhatFollowsFromThePod(t *testing.T) {
	for _, attribute := range []string{
		"dns-names=web.shop.svc", "dns-names=web.shop.svc.cluster.local", "dns-names=web-0.web.shop.svc.cluster.local",
		"dns-names=*.web.shop.svc", "dns-names=*.shop.svc", "dns-names=Web.Shop.SVC", "dns-names=_x.shop.svc",
		"uri-sans=spiffe://cluster.local/ns/shop/sa/clerk", "spiffe=true", "ip-sans=10.0.0.1", "ip-sans=fd00::1,::ffff:10.0.0.1",
		"common-name=web.shop.svc", "common-name=WEB.shop.svc", "literal-subject=CN=web.shop.svc",
	} {
		if err := (Policy{ClusterDomain: "cluster.local"}).Check(asks(t, web(), spec.Prefix, attribute), identity()); err != nil {
			t.Errorf("%s: %v", attribute, err)
		}
	}
}

func TestWhatDoesNot(t *testing.T) {
	const own = ": it may have names under shop.svc.cluster.local and shop.svc"
	for attributes, want := range map[string]string{
		"dns-names=web.test":                               `DNS name "web.test" is not the pod's` + own,
		"dns-names=web":                                    `DNS name "web" is not the pod's` + own + ": a CertificatePolicy can allow more",
		"dns-names=WEB":                                    `DNS name "WEB" is not`,
		"dns-names=web.shop":                               `DNS name "web.shop" is not`,
		"dns-names=*.shop":                                 `DNS name "*.shop" is not`,
		"common-name=web":                                  `common name "web" is not`,
		"common-name=POSTGRES":                             `common name "POSTGRES" is not`,
		"common-name=\u212Aafka.shop.svc":                  `.shop.svc" is not`, // The Kelvin sign, whose small letter is k.
		"dns-names=web.shop.svc;duration=25h":              "duration 25h0m0s is longer than 24h0m0s",
		"dns-names=web.shop.svc;duration=10s":              "duration 10s is shorter than 5m0s",
		"dns-names=web.shop.svc;key-usages=any":            `key usage "any" is not allowed`,
		"dns-names=web.shop.svc;key-usages=code signing":   `key usage "code signing" is not allowed`,
		"dns-names=shop":                                   `DNS name "shop" is not`,
		"dns-names=shop.svc":                               `DNS name "shop.svc" is not`,
		"dns-names=api":                                    `DNS name "api" is not`,
		"dns-names=web.other":                              `DNS name "web.other" is not`,
		"dns-names=web.other.svc":                          `DNS name "web.other.svc" is not`,
		"dns-names=web.myshop":                             `DNS name "web.myshop" is not`,
		"dns-names=web.shop.svc.example.org":               `DNS name "web.shop.svc.example.org" is not`,
		"dns-names=shop.svc.cluster.local":                 `DNS name "shop.svc.cluster.local" is not`,
		"dns-names=kubernetes.default.svc":                 `DNS name "kubernetes.default.svc" is not`,
		"dns-names=*.svc":                                  `DNS name "*.svc" is not`,
		"dns-names=*.cluster.local":                        `DNS name "*.cluster.local" is not`,
		"dns-names=web.shop.svc,web.test,x.test":           `DNS name "x.test" is not`,
		"uri-sans=spiffe://cluster.local/ns/shop/sa/admin": `URI "spiffe://cluster.local/ns/shop/sa/admin" is not the pod's: it may have "spiffe://cluster.local/ns/shop/sa/clerk"`,
		"uri-sans=https://web.shop.svc":                    `URI "https://web.shop.svc" is not the pod's`,
		"ip-sans=10.0.0.2":                                 "IP address 10.0.0.2 is not proved to be the pod's",
		"common-name=admin":                                `common name "admin" is not the pod's` + own,
		"common-name=web;organizations=system:masters":     "subject: O=system:masters is not the pod's to say",
		"literal-subject=CN=admin,O=Shop":                  `common name "admin" is not the pod's`,
		"literal-subject=CN=web+CN=admin":                  `common name "admin" is not the pod's`,
		"literal-subject=UID=web":                          "subject: 0.9.2342.19200300.100.1.1=#",
		"dns-names=web;is-ca=true":                         "a pod may not be a CA",
		"dns-names=web;key-usages=cert sign":               `key usage "cert sign" is a CA's`,
		"dns-names=web;key-usages=digital signature,crl sign,ocsp signing": `key usage "crl sign" is a CA's; key usage "ocsp signing" is a CA's`,
	} {
		v := asks(t, web(), spec.Prefix, strings.Split(attributes, ";")...)
		if err := (Policy{ClusterDomain: "cluster.local"}).Check(v, identity()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", attributes, err, want)
		}
	}
}

// The names of a pod and of its namespace are chosen by people, who may choose another's.
func TestNamesThatAreAnothers(t *testing.T) {
	for _, row := range []struct {
		namespace, pod, name, domain string
		want                         bool
	}{
		{"shop", "www.example.org", "www.example.org", "cluster.local", false},
		{"shop", "api.other.svc", "api.other.svc", "cluster.local", false},
		{"evil", "postgres", "postgres", "cluster.local", false},
		{"evil", "kubernetes", "kubernetes", "cluster.local", false},
		{"shop", "web.shop", "web.shop", "cluster.local", false},
		{"svc", "web", "kubernetes.default.svc", "cluster.local", false},
		{"svc", "web", "web.svc.svc", "cluster.local", true},
		{"local", "web", "kubernetes.default.svc.cluster.local", "cluster.local", false},
		{"local", "web", "web.local.svc", "cluster.local", true},
		{"org", "web", "kubernetes.default.svc.example.org", "example.org", false},
		{"local", "web", "web.local", "example.org", false},
		{"dev", "web", "web.dev", "cluster.local", false},
		{"default", "web", "web.default.svc", "cluster.local", true},
		{"default", "web", "kubernetes.default.svc", "cluster.local", false},
		{"default", "web", "Kubernetes.default.svc.cluster.local", "cluster.local", false},
		{"default", "web", "*.default.svc", "cluster.local", false},
		{"default", "web", "*.default.svc.cluster.local", "cluster.local", false},
		{"default", "web", "*.web.default.svc", "cluster.local", true},
		{"shop", "web", "kubernetes.default.svc.shop.svc", "shop.svc", false},
		{"svc", "web", "kubernetes.default.svc.svc", "svc", false},
		{"shop", "web", "web.shop.svc.shop.svc", "shop.svc", true},
	} {
		v := asks(t, signer.Pod{Namespace: row.namespace, Name: row.pod, UID: "1", ServiceAccount: "clerk"}, spec.Prefix, "dns-names="+row.name)
		if err := (Policy{ClusterDomain: row.domain}).Check(v, decide.Identity{}); (err == nil) != row.want {
			t.Errorf("pod %s/%s, %s: %v", row.namespace, row.pod, row.name, err)
		}
	}
}

// The old dialect has names that are none.
func TestTheOldDialect(t *testing.T) {
	for name, want := range map[string]bool{
		"web.shop.svc": true, "web..shop.svc": false, ".shop.svc": false, "a b.shop.svc": false, "*.*.shop.svc": false, "w*b.shop.svc": false,
		"web.shop.svc.": false, "evil.test/.shop.svc": false, "web.shop": false, "web": false,
	} {
		v := asks(t, web(), spec.OldPrefix, "dns-names="+name)
		if err := (Policy{ClusterDomain: "cluster.local"}).Check(v, identity()); (err == nil) != want {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestAPodWithoutASPIFFEID(t *testing.T) {
	v := asks(t, web(), spec.Prefix, "spiffe=true")
	if err := (Policy{ClusterDomain: "cluster.local"}).Check(v, decide.Identity{}); err == nil || !strings.Contains(err.Error(), "is not the pod's: it has none") {
		t.Error(err)
	}
}

// What may be asked for by default leaves room for what each dialect asks for by default.
func TestDurationsByDialect(t *testing.T) {
	for _, row := range []struct {
		dialect  spec.Dialect
		duration time.Duration
		usage    signer.Usage
		want     string
	}{
		{spec.Mayfly, time.Hour, "key agreement", ""},
		{spec.Mayfly, 24*time.Hour + 1, "", "is longer than 24h0m0s"},
		{spec.Mayfly, 5*time.Minute - 1, "", "is shorter than 5m0s"},
		{spec.Mayfly, time.Hour, "data encipherment", "is not allowed"},
		{spec.CSIDriver, 2160 * time.Hour, "data encipherment", ""},
		{spec.CSIDriver, 2160*time.Hour + 1, "", "is longer than 2160h0m0s"},
		{spec.CSIDriver, 10 * time.Second, "signing", ""},
		{spec.CSIDriver, 10*time.Second - 1, "", "is shorter than 10s"},
		{spec.CSIDriver, time.Hour, "any", "is not allowed"},
		{spec.CSIDriverSPIFFE, time.Hour, "client auth", ""},
		{spec.CSIDriverSPIFFE, 25 * time.Hour, "", "is longer than 24h0m0s"},
	} {
		v := spec.Spec{Pod: web(), Dialect: row.dialect, Duration: row.duration}
		if row.usage != "" {
			v.Usages = []signer.Usage{row.usage}
		}
		err := (Policy{ClusterDomain: "cluster.local"}).Check(v, identity())
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}
