package manifests_test

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mayfly-csi/mayfly/signer"
	certificates "github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/review"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// Each example of policies is loaded, and decides as it says: for a service account, "shop/web", and the attributes of a
// volume of the driver. No message: it is allowed.
func TestExamplesOfPolicies(t *testing.T) {
	const own = "shop-7/web"
	rows := map[string][]struct{ account, driver, attributes, want string }{
		"names-of-my-domain": {
			{"shop/web", spec.Driver, "dns-names=shop.example.org,a.b.shop.example.org", ""},
			{own, spec.Driver, "dns-names=WWW.shop.example.org;common-name=www.shop.example.org;spiffe=true", ""},
			{own, spec.Driver, "dns-names=web.shop-7.svc", ""},
			{"shop/web", spec.Driver, "dns-names=example.org", `DNS name "example.org" is not allowed`},
			{"shop/web", spec.Driver, "dns-names=evilshop.example.org", `DNS name "evilshop.example.org" is not allowed`},
			{"shop/web", spec.Driver, "dns-names=*.shop.example.org", `is a wildcard`},
			{"bank/web", spec.Driver, "dns-names=shop.example.org", `is not the pod's`},
		},
		"spiffe-ids-only": {
			{"shop/web", spec.Driver, "spiffe=true", ""},
			{"shop/web", spec.SPIFFEDriver, "", ""},
			{"shop/web", spec.Driver, "spiffe=true;dns-names=web.shop.svc", "the pod's SPIFFE ID and no other name"},
			{"shop/web", spec.Driver, "spiffe=true;common-name=web.shop.svc", "the pod's SPIFFE ID and no other name"},
			{"shop/web", spec.Driver, "dns-names=web.shop.svc", "the pod's SPIFFE ID and no other name"},
			{"shop/web", spec.Driver, "uri-sans=spiffe://cluster.local/ns/shop/sa/admin", "is not allowed"},
		},
		"ca-for-one-account": {
			{"mesh/issuer", spec.Driver, "issuer-name=mesh-root;is-ca=true;common-name=mesh intermediate CA;key-usages=cert sign,crl sign;key-size=384;duration=720h", ""},
			{"mesh/other", spec.Driver, "issuer-name=mesh-root;is-ca=true;common-name=mesh intermediate CA;key-usages=cert sign;key-size=384", "a pod may not be a CA"},
			{"mesh/other", spec.Driver, "dns-names=web.mesh.svc", ""},
			{"shop/issuer", spec.Driver, "is-ca=true;dns-names=web.shop.svc;key-usages=cert sign", "a pod may not be a CA"},
			{"mesh/issuer", spec.Driver, "issuer-name=other;is-ca=true;common-name=mesh intermediate CA;key-usages=cert sign;key-size=384", "issuer Issuer other"},
			{"mesh/issuer", spec.Driver, "issuer-name=mesh-root;is-ca=true;common-name=root;key-usages=cert sign;key-size=384", `common name "root" is not allowed`},
			{"mesh/issuer", spec.Driver, "issuer-name=mesh-root;is-ca=true;common-name=mesh intermediate CA;key-usages=cert sign", "key ECDSA of 256 bits"},
			{"mesh/issuer", spec.Driver, "issuer-name=mesh-root;is-ca=true;common-name=mesh intermediate CA;key-usages=cert sign;key-size=384;duration=721h", "is longer than 720h"},
			{"mesh/issuer", spec.Driver, "issuer-name=mesh-root;dns-names=web.mesh.svc;key-usages=digital signature;key-size=384", `DNS name "web.mesh.svc" is not allowed`},
		},
		"nothing": {
			{"shop/web", spec.Driver, "dns-names=web.shop.svc", ""},
			{"sandbox/web", spec.Driver, "dns-names=web.sandbox.svc", `DNS name "web.sandbox.svc" is not allowed: there are none that are`},
			{"sandbox/web", spec.Driver, "spiffe=true", "there are none that are"},
			{"sandbox/web", spec.OldDriver, "dns-names=x.test", "there are none that are"},
		},
		"csi-driver": {
			{"shop/web", spec.OldDriver, "dns-names=web,*.example.org,web.shop;common-name=web;uri-sans=spiffe://corp.test/ns/a/sa/b;ip-sans=192.0.2.1,2001:db8::1;duration=2160h", ""},
			{"shop/web", spec.OldDriver, "dns-names=web;duration=8760h;key-usages=code signing,digital signature", ""},
			{"shop/web", spec.OldDriver, "dns-names=web;acme.cert-manager.io/http01-override-ingress-name=web", ""},
			{"shop/web", spec.OldDriver, "dns-names=web;is-ca=true", "it may not be a CA's certificate"},
			{"shop/web", spec.OldDriver, "dns-names=web;key-usages=cert sign", `key usage "cert sign" is not allowed`},
			{"shop/web", spec.OldDriver, "dns-names=web;duration=8761h", "is longer than 8760h"},
			{"shop/web", spec.Driver, "dns-names=web.shop.svc,*.web.shop.svc", ""},
			{"shop/web", spec.Driver, "dns-names=web", "more than own names is for volumes of csi.cert-manager.io"},
			{"shop/web", spec.SPIFFEDriver, "", ""},
		},
	}
	files, err := filepath.Glob("examples/policies/*.yaml")
	if err != nil || len(files) != len(rows) {
		t.Errorf("%d files, and rows of %d (%v)", len(files), len(rows), err)
	}
	for _, file := range files {
		allowed, denied := 0, 0
		set := examplePolicies(t, file)
		for _, row := range rows[strings.TrimSuffix(filepath.Base(file), ".yaml")] {
			err := checkExample(t, set, row.account, row.driver, row.attributes)
			if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %s, %s: %v, want %s", file, row.account, row.attributes, err, row.want)
			}
			if err == nil {
				allowed++
			} else {
				denied++
			}
		}
		if allowed == 0 || denied == 0 {
			t.Errorf("%s: %d rows are allowed, and %d denied", file, allowed, denied)
		}
	}
}

// examplePolicies are those of a file, each of which has no mistake.
func examplePolicies(t *testing.T, file string) certificates.Set {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := review.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	compiler, err := certificates.NewCompiler(certificates.Policy{ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	set := compiler.Set(objects.Policies)
	if len(objects.Policies) == 0 || len(objects.Pods) > 0 || objects.Others > 0 {
		t.Errorf("%s has %+v", file, objects)
	}
	for _, r := range set.Rules() {
		if r.Err != nil {
			t.Errorf("%s: %v", file, r.Err)
		}
	}
	return set
}

// checkExample returns what policies have against a volume, whose attributes have the prefix of its dialect where they
// have none.
func checkExample(t *testing.T, set certificates.Set, account, driver, attributes string) error {
	t.Helper()
	namespace, name, _ := strings.Cut(account, "/")
	pod := signer.Pod{Namespace: namespace, Name: "pod-0", UID: "1", ServiceAccount: name}
	prefix := map[string]string{spec.Driver: spec.Prefix, spec.OldDriver: spec.OldPrefix}[driver]
	all := map[string]string{}
	if prefix != "" {
		all[prefix+"issuer-name"] = "ca"
	}
	for pair := range strings.SplitSeq(attributes, ";") {
		if key, value, ok := strings.Cut(pair, "="); ok && strings.Contains(key, "/") {
			all[key] = value
		} else if ok {
			all[prefix+key] = value
		}
	}
	defaults := spec.Defaults{IssuerName: "ca", TrustDomain: "cluster.local"}
	wanted, err := spec.Parse(spec.AskedBy(pod, driver, all), defaults)
	if err != nil {
		t.Fatalf("%s %s: %v", account, attributes, err)
	}
	id := &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/" + namespace + "/sa/" + name}
	return set.Check(wanted, decide.Identity{SPIFFEID: id})
}
