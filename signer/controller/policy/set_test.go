package policy

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// written is a policy with a spec in YAML's flow style, without the braces.
func written(t testing.TB, name, spec string) (p v1alpha1.CertificatePolicy) {
	t.Helper()
	if err := yaml.UnmarshalStrict([]byte("metadata: {name: "+name+"}\nspec: {"+spec+"}"), &p); err != nil {
		t.Fatal(err)
	}
	return p
}

// policies are named a, b and so on.
func policies(t testing.TB, specs ...string) (all []v1alpha1.CertificatePolicy) {
	t.Helper()
	for i, spec := range specs {
		all = append(all, written(t, string(rune('a'+i)), spec))
	}
	return all
}

func TestAllow(t *testing.T) {
	c := newCompiler(t)
	for _, row := range []struct{ spec, attributes, want string }{
		{"", "dns-names=web.shop.svc", ""},
		{"", "spiffe=true;ip-sans=10.0.0.1;common-name=web.shop.svc", ""},
		{"", "common-name=web", `common name "web" is not allowed`},
		{"", "dns-names=web", `DNS name "web" is not allowed`},
		{"allow: {dnsNames: [kafka.test]}", "common-name=\u212Aafka.test", "is not allowed"},
		{"allow: {dnsNames: [web, web.shop]}", "dns-names=web,WEB.shop;common-name=web", ""},
		{"allow: {ownNames: false}", "dns-names=web.shop.svc", `DNS name "web.shop.svc" is not allowed: there are none that are`},
		{"allow: {ownNames: false}", "spiffe=true", `URI "spiffe://cluster.local/ns/shop/sa/clerk" is not allowed: there are none that are`},
		{"allow: {ownNames: false}", "ip-sans=10.0.0.1", "IP address 10.0.0.1 is not proved to be the pod's, nor allowed: there are none that are"},
		{"allow: {ownNames: false}", "common-name=web", `common name "web" is not allowed: there are none that are`},

		{"", "dns-names=web.test", `DNS name "web.test" is not allowed: allowed are names under shop.svc.cluster.local and shop.svc`},
		{"allow: {dnsNames: [web.test]}", "dns-names=web.test,Web.TEST,web.shop.svc", ""},
		{"allow: {dnsNames: [web.test]}", "dns-names=x.web.test", "is not allowed: allowed are names under shop.svc.cluster.local and shop.svc, web.test"},
		{"allow: {dnsNames: ['*.test']}", "dns-names=web.test", ""},
		{"allow: {dnsNames: ['*.test']}", "dns-names=a.b.test", `"a.b.test" is not`},
		{"allow: {dnsNames: ['*.test']}", "dns-names=*.b.test", `"*.b.test" is not`},
		{"allow: {dnsNames: ['*.test']}", "dns-names=test", `"test" is not`},
		{"allow: {dnsNames: ['*.test']}", "dns-names=webtest", `"webtest" is not`},
		{"allow: {dnsNames: ['**.test']}", "dns-names=web.test,a.b.test", ""},
		{"allow: {dnsNames: ['**.test']}", "dns-names=test", `"test" is not`},
		{"allow: {dnsNames: ['**.test']}", "dns-names=a.webtest", `"a.webtest" is not`},
		{"allow: {dnsNames: ['**']}", "dns-names=a,b.example.org", ""},

		{"allow: {dnsNames: ['*.test'], wildcards: true}", "dns-names=web.test,*.test", ""},
		{"allow: {dnsNames: ['**.test'], wildcards: true}", "dns-names=*.test,*.b.test;common-name=*.test", ""},
		{"allow: {dnsNames: ['**'], wildcards: true}", "dns-names=*.org", ""},
		{"allow: {wildcards: true}", "dns-names=*.web.shop.svc", ""},
		{"allow: {wildcards: true}", "dns-names=*.test", `DNS name "*.test" is not allowed`},
		{"allow: {dnsNames: [web.test], wildcards: true}", "dns-names=*.test", `DNS name "*.test" is not allowed`},
		{"allow: {dnsNames: ['*.test']}", "dns-names=*.test", `"*.test" is a wildcard, which only allow.wildcards allows`},
		{"allow: {dnsNames: ['**']}", "dns-names=web.test,*.b.test", `"*.b.test" is a wildcard`},
		{"", "dns-names=*.web.shop.svc", `"*.web.shop.svc" is a wildcard`},
		{"allow: {commonNames: ['*']}", "common-name=*.test", `"*.test" is a wildcard`},
		{"allow: {commonNames: ['*']}", "common-name=w*.test", `"w*.test" is a wildcard`},
		{"allow: {commonNames: ['*'], wildcards: true}", "common-name=*.test", ""},

		{"allow: {dnsNames: [web.test]}", "common-name=web.test", ""},
		{"allow: {commonNames: ['db-*']}", "common-name=db-7", ""},
		{"allow: {commonNames: ['db-*']}", "common-name=xdb-7", `common name "xdb-7" is not allowed: allowed are db-*, `},
		{"allow: {commonNames: ['db-*']}", "dns-names=db-7", `DNS name "db-7" is not`},
		{"allow: {commonNames: ['a.c']}", "common-name=abc", `common name "abc" is not`},
		{"allow: {commonNames: ['*']}", "literal-subject=CN=a+CN=b", "subject: there must be one common name"},
		{"", "organizations=Shop", `organization "Shop" is not allowed: there are none that are`},
		{"allow: {organizations: ['Shop *']}", "organizations=Shop A/B", ""},
		{"allow: {organizations: ['Shop *']}", "organizations=Shop A,system:masters", `organization "system:masters" is not allowed: allowed are Shop *`},
		{"allow: {organizations: ['*'], commonNames: ['*']}", "literal-subject=CN=a,OU=b", "subject: no policy can allow OU=b: only a common name and organizations"},

		{"allow: {ips: [10.0.0.0/24, 'fd00::/64']}", "ip-sans=10.0.0.9,fd00::9,::ffff:10.0.0.8", ""},
		{"allow: {ips: [10.0.0.0/24]}", "ip-sans=10.0.1.9", "IP address 10.0.1.9 is not proved to be the pod's, nor allowed: allowed are 10.0.0.0/24"},

		{"allow: {uris: ['spiffe://other/ns/*/sa/web']}", "uri-sans=spiffe://other/ns/shop/sa/web", ""},
		{"allow: {uris: ['spiffe://other/ns/*/sa/web']}", "uri-sans=spiffe://other/ns/a/b/sa/web", `URI "spiffe://other/ns/a/b/sa/web" is not allowed: allowed are spiffe://cluster.local/ns/shop/sa/clerk, spiffe://other/ns/*/sa/web`},
		{"allow: {uris: ['https://*.example.org/*']}", "uri-sans=https://a.example.org/b", ""},
		{"allow: {uris: ['https://*.example.org/*']}", "uri-sans=https://evil.test?x.example.org/b", "is not"},
		{"allow: {uris: ['https://*.example.org/*']}", "uri-sans=https://evil.test#x.example.org/b", "is not"},
		{"allow: {uris: ['https://*.example.org/*']}", "uri-sans=https://a@evil.example.org/b", "is not"},
		{"allow: {uris: ['https://*.example.org/*']}", "uri-sans=https://a.example.org/..", "is not"},
		{"allow: {uris: ['https://*.example.org/*/x']}", "uri-sans=https://a.example.org/../x", "is not"},
		{"allow: {uris: ['https://*.example.org/*']}", "uri-sans=https://a.example.org/%2e%2e", "is not"},
		{"allow: {uris: ['https://*.example.org/*']}", "uri-sans=https://a.example.org/b?c", "is not"},
		{"allow: {uris: ['spiffe://*/ns/shop']}", "uri-sans=spiffe://other/ns/shop", ""},
		{"allow: {uris: ['urn:example:*']}", "uri-sans=urn:example:a", ""},
		{"allow: {uris: ['urn:exam.le:a']}", "uri-sans=urn:example:a", "is not"},

		{"", "is-ca=true", "it may not be a CA's certificate"},
		{"", "key-usages=cert sign", `key usage "cert sign" is not allowed: it is a CA's`},
		{"allow: {isCA: true}", "is-ca=true;key-usages=cert sign,crl sign,ocsp signing", ""},
		{"allow: {isCA: true}, limits: {usages: [cert sign]}", "is-ca=true;key-usages=cert sign,crl sign", `key usage "crl sign" is not allowed: allowed are cert sign`},
	} {
		checks(t, c, row.spec, row.attributes, row.want)
	}
}

func TestLimits(t *testing.T) {
	c := newCompiler(t)
	for _, row := range []struct{ spec, attributes, want string }{
		{"limits: {usages: [digital signature, server auth]}", "key-usages=server auth", ""},
		{"limits: {usages: [digital signature, server auth]}", "key-usages=server auth,client auth", `key usage "client auth" is not allowed: allowed are digital signature, server auth`},
		{"limits: {usages: [ocsp signing]}", "key-usages=ocsp signing", ""},
		{"", "key-usages=code signing", `key usage "code signing" is not allowed: allowed are digital signature, key encipherment, key agreement, server auth, client auth`},
		{"limits: {usages: [code signing]}", "key-usages=code signing", ""},
		{"", "duration=24h", ""},
		{"", "duration=25h", "duration 25h0m0s is longer than 24h0m0s"},
		{"", "duration=299s", "duration 4m59s is shorter than 5m0s"},
		{"limits: {maxDuration: 25h}", "duration=25h", ""},
		{"limits: {maxDuration: 1m}", "duration=1m", ""},
		{"limits: {maxDuration: 1m}", "duration=59s", "duration 59s is shorter than 1m0s"},
		{"limits: {minDuration: 30s}", "duration=30s", ""},
		{"limits: {minDuration: 30s}", "duration=29s", "duration 29s is shorter than 30s"},
		{"limits: {minDuration: 48h}", "duration=48h", ""},
		{"limits: {minDuration: 48h}", "duration=47h", "duration 47h0m0s is shorter than 48h0m0s"},
		{"limits: {maxDuration: 1h}", "duration=1h", ""},
		{"limits: {maxDuration: 1h}", "duration=61m", "duration 1h1m0s is longer than 1h0m0s"},
		{"limits: {issuers: [{name: ca}]}", "", ""},
		{"limits: {issuers: [{name: ca}]}", "issuer-kind=ClusterIssuer", "issuer ClusterIssuer ca of cert-manager.io is not allowed: allowed are Issuer ca of cert-manager.io"},
		{"limits: {issuers: [{name: ca}]}", "issuer-group=example.org", "issuer Issuer ca of example.org is not allowed"},
		{"limits: {issuers: [{name: 'web-*'}, {name: 'c*', kind: '*', group: '*.org'}]}", "issuer-kind=ClusterIssuer;issuer-group=example.org", ""},
		{"limits: {issuers: [{name: 'web-*'}]}", "", "issuer Issuer ca of"},
		{"limits: {keys: [{algorithm: ECDSA}]}", "", ""},
		{"limits: {keys: [{algorithm: ECDSA}, {algorithm: RSA, minSize: 3072}]}", "key-algorithm=RSA;key-size=3072", ""},
		{"limits: {keys: [{algorithm: ECDSA}, {algorithm: RSA, minSize: 3072}]}", "key-algorithm=RSA;key-size=2048", "key RSA of 2048 bits is not allowed: allowed are ECDSA, RSA of at least 3072 bits"},
		{"limits: {keys: [{algorithm: Ed25519}]}", "key-algorithm=Ed25519", ""},
		{"limits: {keys: [{algorithm: Ed25519}]}", "", "key ECDSA of 256 bits is not allowed"},
		{"expressions: [{expression: 'size(volume.dnsNames) < 2'}]", "dns-names=a.shop.svc", ""},
		{"expressions: [{expression: 'true'}, {expression: 'size(volume.dnsNames) < 2', message: too many}]", "dns-names=a.shop.svc,b.shop.svc", "too many"},
		{"allow: {uris: ['https://*.test/']}, expressions: [{expression: 'volume.uris.all(u, u != \"https://admin.test/\")', message: not admin}]", "uri-sans=https://ADMIN.test/", "not admin"},
		{"allow: {uris: ['https://*.test/']}, expressions: [{expression: 'volume.uris.all(u, u == \"https://w.test/\")'}]", "uri-sans=HTTPS://W.test/", ""},
		{"expressions: [{expression: 'volume.dnsNames[0] == \"\"'}]", "spiffe=true", `fails: index out of bounds: 0`},
	} {
		checks(t, c, row.spec, row.attributes, row.want)
	}
}

// checks demands that a policy for the namespace shop has this against a volume; nothing for an empty text.
func checks(t *testing.T, c *Compiler, text, attributes, want string) {
	t.Helper()
	p := written(t, "p", strings.TrimSuffix("namespaces: [shop], "+text, ", "))
	set := c.Set([]v1alpha1.CertificatePolicy{p})
	if !strings.Contains(attributes, "dns-names") && !strings.Contains(attributes, "sans") && !strings.Contains(attributes, "spiffe") && !strings.Contains(attributes, "subject") && !strings.Contains(attributes, "common-name") {
		attributes += ";dns-names=web.shop.svc" // A volume needs a name.
	}
	v := asks(t, web(), spec.Prefix, strings.Split(strings.TrimPrefix(attributes, ";"), ";")...)
	err := set.Check(v, identity())
	if got := fmt.Sprint(err); (err == nil) != (want == "") || err != nil && (!strings.Contains(got, want) || !strings.HasPrefix(got, "CertificatePolicy p: ")) {
		t.Errorf("%s, %s:\n got %v\nwant %s", text, attributes, err, want)
	}
}

// Policies are alternatives, and the rule of own names does not count beside them.
func TestWhoseWordCounts(t *testing.T) {
	c := newCompiler(t)
	const test, other, short, none = "namespaces: [shop], allow: {dnsNames: [web.test]}", "namespaces: [shop], allow: {dnsNames: [other.test]}",
		"namespaces: ['*'], limits: {maxDuration: 1h}", "namespaces: [shop], allow: {ownNames: false}"
	const mistaken = "namespaces: [shop], expressions: [{expression: nonsense}]"
	for _, row := range []struct {
		name       string
		specs      []string
		attributes string
		want       string
	}{
		{"no policy", nil, "dns-names=web.shop.svc", ""},
		{"no policy, another's name", nil, "dns-names=web.test", `DNS name "web.test" is not the pod's`},
		{"a policy of another namespace", []string{"namespaces: [shop2, sho], allow: {ownNames: false}"}, "dns-names=web.shop.svc", ""},
		{"a policy of another service account", []string{"namespaces: [shop], serviceAccounts: [admin], allow: {ownNames: false}"}, "dns-names=web.shop.svc", ""},
		{"namespaces by a pattern", []string{"namespaces: ['s*p'], allow: {ownNames: false}"}, "dns-names=web.shop.svc", "CertificatePolicy a: "},
		{"service accounts by a pattern", []string{"namespaces: ['*'], serviceAccounts: [admin, 'cl*'], allow: {ownNames: false}"}, "dns-names=web.shop.svc", "CertificatePolicy a: "},
		{"a limit binds own names", []string{short}, "dns-names=web.shop.svc;duration=2h", "CertificatePolicy a: duration"},
		{"either", []string{test, other}, "dns-names=other.test", ""},
		{"not one half of each", []string{test, other}, "dns-names=web.test,other.test", `CertificatePolicy a, the nearest of 2: DNS name "other.test"`},
		{"a policy without the limit", []string{short, test}, "dns-names=web.test;duration=2h", ""},
		{"a policy that allows nothing takes nothing from another", []string{none, test}, "dns-names=web.test", ""},
		{"the nearest", []string{none, short}, "dns-names=web.shop.svc,x.shop.svc;duration=2h", "CertificatePolicy b, the nearest of 2: duration"},
		{"a mistake allows nothing", []string{mistaken}, "dns-names=web.shop.svc", "CertificatePolicy a: it has a mistake, and so allows nothing: spec.expressions[0]: "},
		{"a mistake takes nothing from another", []string{mistaken, test}, "dns-names=web.test", ""},
		{"a mistake is not the nearest", []string{mistaken, none}, "dns-names=a.shop.svc,b.shop.svc", "CertificatePolicy b, the nearest of 2: "},
		{"a default for whom no other selects", []string{"namespaces: ['*'], default: true, allow: {dnsNames: [web.test]}"}, "dns-names=web.test", ""},
		{"a default may have limits", []string{"namespaces: ['*'], default: true, limits: {maxDuration: 1h}"}, "dns-names=web.shop.svc;duration=2h", "CertificatePolicy a: duration"},
		{"a default that forbids all", []string{"namespaces: ['*'], default: true, allow: {ownNames: false}"}, "dns-names=web.shop.svc", "CertificatePolicy a: DNS name"},
		{"a default does not count beside another", []string{"namespaces: ['*'], default: true, allow: {dnsNames: [web.test]}", "namespaces: [shop]"}, "dns-names=web.test", "CertificatePolicy b: DNS name"},
		{"a default does not limit another", []string{"namespaces: ['*'], default: true, limits: {maxDuration: 1h}", test}, "dns-names=web.test;duration=2h", ""},
		{"a default of other namespaces", []string{"namespaces: [bank], default: true, allow: {ownNames: false}"}, "dns-names=web.shop.svc", ""},
		{"a default of another service account", []string{"namespaces: [shop], serviceAccounts: [admin], default: true, allow: {ownNames: false}"}, "dns-names=web.shop.svc", ""},
		{"defaults are alternatives", []string{"namespaces: ['*'], default: true, allow: {ownNames: false}", "namespaces: [shop], default: true, allow: {dnsNames: [web.test]}"}, "dns-names=web.test", ""},
		{"a default with a mistake allows nothing", []string{"namespaces: ['*'], default: true, expressions: [{expression: nonsense}]"}, "dns-names=web.shop.svc", "CertificatePolicy a: it has a mistake"},
		{"a mistake is not left to the default", []string{mistaken, "namespaces: ['*'], default: true"}, "dns-names=web.shop.svc", "CertificatePolicy a: it has a mistake"},
		{"whoever's mistake", []string{none, mistaken}, "dns-names=a.shop.svc,b.shop.svc", "CertificatePolicy a, the nearest of 2: "},
	} {
		err := c.Set(policies(t, row.specs...)).Check(asks(t, web(), spec.Prefix, strings.Split(row.attributes, ";")...), identity())
		if got := fmt.Sprint(err); (err == nil) != (row.want == "") || !strings.Contains(got, row.want) && err != nil {
			t.Errorf("%s:\n got %v\nwant %s", row.name, err, row.want)
		}
	}
}

func TestRanges(t *testing.T) {
	set := newCompiler(t).Set(policies(t,
		"namespaces: [shop], allow: {ips: [10.0.0.0/8]}", "namespaces: [shop], allow: {ips: ['fd00::/8']}", "namespaces: [other], allow: {ips: [11.0.0.0/8]}",
		"namespaces: [shop], allow: {ips: [12.0.0.0/8]}, expressions: [{expression: nonsense}]"))
	if got := fmt.Sprint(set.Ranges(web())); got != "[10.0.0.0/8 fd00::/8]" {
		t.Error(got)
	}
	if got := set.Ranges(signer.Pod{Namespace: "third"}); got != nil {
		t.Error(got)
	}
	if got := (Policy{}).Ranges(web()); got != nil {
		t.Error(got)
	}
	// A range of one policy does not make an IP the pod's own for another.
	v := asks(t, web(), spec.Prefix, "ip-sans=10.0.0.9", "dns-names=web.test")
	set = newCompiler(t).Set(policies(t, "namespaces: [shop], allow: {ips: [10.0.0.0/8]}", "namespaces: [shop], allow: {dnsNames: [web.test]}"))
	withDefault := newCompiler(t).Set(policies(t, "namespaces: ['*'], default: true, allow: {ips: [10.0.0.0/8]}", "namespaces: [shop]"))
	if got := fmt.Sprint(withDefault.Ranges(web()), withDefault.Ranges(signer.Pod{Namespace: "bank"})); got != "[] [10.0.0.0/8]" {
		t.Error(got)
	}
	if err := set.Check(v, decide.Identity{IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}); err == nil {
		t.Error("two policies are one")
	}
}

func TestMistakes(t *testing.T) {
	c := newCompiler(t)
	for spec, want := range map[string]string{
		"":                                       "spec.namespaces: is required",
		"namespaces: ['']":                       "spec.namespaces[0]: it is empty",
		"namespaces: [a], serviceAccounts: ['']": "spec.serviceAccounts[0]: it is empty",
		"namespaces: [a], allow: {dnsNames: [Web.test]}":                                      `spec.allow.dnsNames[0]: "Web.test" is not a DNS name in small letters, nor one after '*.' or '**.'`,
		"namespaces: [a], allow: {dnsNames: [x, 'a.*.test']}":                                 "spec.allow.dnsNames[1]: ",
		"namespaces: [a], allow: {dnsNames: ['*']}":                                           "spec.allow.dnsNames[0]: ",
		"namespaces: [a], allow: {dnsNames: ['*.*.test']}":                                    "spec.allow.dnsNames[0]: ",
		"namespaces: [a], allow: {dnsNames: ['**.*.test']}":                                   "spec.allow.dnsNames[0]: ",
		"namespaces: [a], allow: {dnsNames: ['']}":                                            "spec.allow.dnsNames[0]: ",
		"namespaces: [a], allow: {commonNames: ['']}":                                         "spec.allow.commonNames[0]: it is empty",
		"namespaces: [a], allow: {organizations: ['']}":                                       "spec.allow.organizations[0]: it is empty",
		"namespaces: [a], allow: {ips: [10.0.0.1/8]}":                                         `spec.allow.ips[0]: "10.0.0.1/8" is not the CIDR of a range`,
		"namespaces: [a], allow: {ips: [x]}":                                                  `spec.allow.ips[0]: "x" is not the CIDR of a range`,
		"namespaces: [a], allow: {ips: ['::ffff:10.0.0.0/104']}":                              "is not the CIDR of a range",
		"namespaces: [a], allow: {uris: ['*']}":                                               `spec.allow.uris[0]: "*" is not a URI, such as spiffe://example.org/ns/*/sa/web`,
		"namespaces: [a], limits: {usages: [sign]}":                                           `spec.limits.usages[0]: "sign" is not a key usage`,
		"namespaces: [a], limits: {maxDuration: 0s}":                                          "spec.limits.maxDuration: 0s is not longer than 0s",
		"namespaces: [a], allow: {uris: ['https://example.org*']}":                            `spec.allow.uris[0]: "https://example.org*" has a * that could end in another host: one may stand for a whole host`,
		"namespaces: [a], allow: {uris: ['https://*example.org/']}":                           "that could end in another host",
		"namespaces: [a], allow: {uris: ['https://a.*.example.org/']}":                        "that could end in another host",
		"namespaces: [a], allow: {uris: ['https://*@example.org/']}":                          "that could end in another host",
		"namespaces: [a], allow: {uris: ['https://example.org:*/']}":                          "that could end in another host",
		"namespaces: [a], allow: {uris: ['https://*.*/']}":                                    "that could end in another host",
		"namespaces: [a], allow: {annotations: ['']}":                                         "spec.allow.annotations[0]: it is empty",
		"namespaces: [a], limits: {minDuration: 0s}":                                          "spec.limits.minDuration: 0s is not longer than 0s",
		"namespaces: [a], limits: {minDuration: 2h, maxDuration: 1h}":                         "spec.limits.minDuration: 2h0m0s is longer than maxDuration, 1h0m0s",
		"namespaces: [a], limits: {issuers: [{kind: Issuer}]}":                                "spec.limits.issuers[0]: it is empty",
		"namespaces: [a], limits: {keys: [{algorithm: DSA}]}":                                 `spec.limits.keys[0]: algorithm "DSA" is not known: there are RSA, ECDSA and Ed25519`,
		"namespaces: [a], limits: {keys: [{algorithm: Ed25519, minSize: 1}]}":                 "spec.limits.keys[0]: there are no keys of Ed25519 with at least 1 bits",
		"namespaces: [a], expressions: [{expression: 'true'}, {expression: 'x'}]":             "spec.expressions[1]: \"x\" is not understood: ERROR: <input>:1:1: undeclared reference to 'x'",
		"namespaces: [a], expressions: [" + strings.Repeat("{expression: 'true'},", 11) + "]": "spec.expressions: there are 11, and may be 10",
	} {
		if err := c.Compile(written(t, "p", spec)).Err; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", spec, err, want)
		}
	}
	// Whom a policy with such a mistake selects can't be said. It is everyone: one whom it selects may not have more.
	set := c.Set(policies(t, "namespaces: ['', other]"))
	if err := set.Check(asks(t, web(), spec.Prefix, "dns-names=web.shop.svc"), identity()); err == nil {
		t.Error("a mistake opens something")
	}
}

// Annotations are the operator's to allow, but those that a profile of the operator's gives.
func TestAnnotations(t *testing.T) {
	profiles, err := spec.ParseProfiles(map[string]string{
		spec.ProfilesKey: "profiles: {venafi: {venafi.cert-manager.io/custom-fields: '[]'}}\nnamespaces: {shop: venafi}",
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct {
		policy, key, value, want string
	}{
		"none":                             {"", "", "", ""},
		"the author's":                     {"", "example.org/team", "shop", `annotation "example.org/team" is not allowed: there are none that are`},
		"the profile's value of an author": {"", "venafi.cert-manager.io/custom-fields", "[]", ""},
		"another value than the profile's": {"", "venafi.cert-manager.io/custom-fields", "[{}]", `annotation "venafi.cert-manager.io/custom-fields" is not allowed`},
		"by a policy":                      {"allow: {annotations: ['example.org/*']}", "example.org/team", "shop", ""},
		"not by another policy":            {"allow: {annotations: ['example.org/x']}", "example.org/team", "shop", "is not allowed: allowed are example.org/x"},
		"an expression's": {
			"allow: {annotations: ['*']}, expressions: [{expression: 'volume.annotations.all(k, volume.annotations[k] != \"shop\")', message: no shop}]",
			"example.org/team", "shop", "no shop",
		},
	} {
		attributes := map[string]string{spec.Prefix + "issuer-name": "ca", spec.Prefix + "dns-names": "web.shop.svc"}
		if row.key != "" {
			attributes[row.key] = row.value
		}
		v, err := spec.Parse(spec.AskedBy(web(), spec.Driver, attributes), spec.Defaults{Live: profiles})
		if err != nil || len(v.Annotations) == 0 {
			t.Fatalf("%s: %v (%v)", name, v.Annotations, err)
		}
		var set []v1alpha1.CertificatePolicy
		if row.policy != "" {
			set = policies(t, "namespaces: [shop], "+row.policy)
		}
		err = newCompiler(t).Set(set).Check(v, identity())
		if (err == nil) != (row.want == "") || err != nil && !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
}

// Annotations of the other dialects: csi-driver's volumes have them, csi-driver-spiffe's have that of the driver alone.
func TestAnnotationsByDialect(t *testing.T) {
	const identity = "spiffe.csi.cert-manager.io/identity"
	for _, row := range []struct {
		driver, key string
		want        bool
	}{
		{spec.OldDriver, "acme.cert-manager.io/http01-override-ingress-name", false},
		{spec.OldDriver, identity, false},
		{spec.Driver, identity, false},
		{spec.SPIFFEDriver, "", true},
		{spec.SPIFFEDriver, "acme.cert-manager.io/http01-override-ingress-name", true}, // No annotation there.
	} {
		attributes := map[string]string{row.key: "x"}
		if prefix := map[string]string{spec.OldDriver: spec.OldPrefix, spec.Driver: spec.Prefix}[row.driver]; prefix != "" {
			attributes[prefix+"issuer-name"], attributes[prefix+"dns-names"] = "ca", "web.shop.svc"
		}
		v, err := spec.Parse(spec.AskedBy(web(), row.driver, attributes), spec.Defaults{IssuerName: "ca", TrustDomain: "cluster.local"})
		if err != nil {
			t.Fatal(row, err)
		}
		id := decide.Identity{SPIFFEID: &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/shop/sa/clerk"}}
		if err := (Policy{ClusterDomain: "cluster.local"}).Check(v, id); (err == nil) != row.want {
			t.Errorf("%s of %s, with the annotations %v: %v", row.key, row.driver, v.Annotations, err)
		}
	}
}

// A policy for a service account is left by naming another one, unless a policy is for all of the namespace.
func TestWarnings(t *testing.T) {
	for name, row := range map[string]struct {
		specs []string
		want  string
	}{
		"none":                   {nil, ""},
		"for all accounts":       {[]string{"namespaces: [shop]"}, ""},
		"for one":                {[]string{"namespaces: [shop, 'team-*'], serviceAccounts: [web]"}, "CertificatePolicy a: pods of the namespaces shop, team-* leave it"},
		"for one, and for all":   {[]string{"namespaces: [shop], serviceAccounts: [web]", "namespaces: ['s*']"}, ""},
		"for every one by a *":   {[]string{"namespaces: [shop], serviceAccounts: ['*']"}, ""},
		"for all by a default":   {[]string{"namespaces: [shop], serviceAccounts: [web]", "namespaces: ['*'], default: true"}, ""},
		"a default for one":      {[]string{"namespaces: [shop], serviceAccounts: [web], default: true"}, "CertificatePolicy a: pods of the namespaces shop leave it"},
		"for all of some others": {[]string{"namespaces: [shop, bank], serviceAccounts: [web]", "namespaces: [bank]"}, "CertificatePolicy a: pods of the namespaces shop leave it"},
	} {
		got := strings.Join(newCompiler(t).Set(policies(t, row.specs...)).Warnings(), "\n")
		if (got == "") != (row.want == "") || !strings.HasPrefix(got, row.want) {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
	}
}
