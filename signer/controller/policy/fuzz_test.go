package policy

import (
	"net/url"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A URI that a pattern covers is on the host that the pattern names, as net/url understands both.
func FuzzURI(f *testing.F) {
	for _, seed := range [][2]string{
		{"https://example.org/*", "https://example.org/a"}, {"https://*.example.org/*", "https://evil.test?.example.org/a"},
		{"https://*.example.org/a", "https://evil.test#.example.org/a"}, {"https://*@example.org/", "https://a:b@example.org/"}, {"spiffe://a/ns/*", "spiffe://a/ns/.."}, {"https://example.org*", "https://example.org.evil.test"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, text, name string) {
		p, err := parseURI(v1alpha1.URI(text))
		if err != nil || !p.covers(name) {
			return
		}
		filled, err := url.Parse(strings.ReplaceAll(text, "*", "x"))
		if err != nil {
			return
		}
		is, err := url.Parse(name)
		if err != nil {
			t.Fatalf("%q covers %q: %v", text, name, err)
		}
		parts := func(host string) int { return strings.Count(host, ":") }
		if host := strings.Contains(strings.SplitAfterN(text, "/", 4)[min(2, strings.Count(text, "/"))], "*"); is.Scheme != filled.Scheme || !host && strings.Contains(text, "://") && is.Host != filled.Host || parts(is.Host) != parts(filled.Host) || (is.User == nil) != (filled.User == nil) || is.RawQuery == "" != (filled.RawQuery == "") ||
			!strings.HasSuffix(is.Host, filled.Host[strings.LastIndex(filled.Host, "x")+1:]) || strings.Count(is.Path, "/") != strings.Count(filled.Path, "/") {
			t.Errorf("%q covers %q", text, name)
		}
	})
}

// No policy makes the controller panic, and no mistake is more than a line.
func FuzzCompile(f *testing.F) {
	f.Add("namespaces: [shop]\nallow: {dnsNames: ['**.test'], uris: ['a:*'], ips: [10.0.0.0/8]}\nlimits: {usages: [any], maxDuration: 1h, keys: [{algorithm: RSA}], issuers: [{name: x}]}")
	f.Add("namespaces: ['*']\nexpressions: [{expression: 'volume.dnsNames.all(n, n.matches(\"a+\"))', message: x}, {expression: '}\n{'}]")
	c := newCompiler(f)
	f.Fuzz(func(t *testing.T, text string) {
		var p v1alpha1.CertificatePolicy
		if err := yaml.Unmarshal([]byte(text), &p.Spec); err != nil {
			return
		}
		set := c.Set([]v1alpha1.CertificatePolicy{p})
		v, err := spec.Parse(spec.AskedBy(web(), "csi.mayfly.dev", map[string]string{spec.Prefix + "issuer-name": "ca", spec.Prefix + "dns-names": "web.test"}), spec.Defaults{})
		if err != nil {
			t.Fatal(err)
		}
		if err := set.Check(v, identity()); err != nil && strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
	})
}
