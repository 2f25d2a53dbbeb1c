package volume

import "time"

// Where certificates are asked for by PodCertificateRequests, what those can't say is refused, with what can be said instead
// (kubernetes pkg/apis/certificates/validation, ValidatePodCertificateRequestCreate).

const byPodCertificates = "this driver asks by PodCertificateRequests (--signer=pod-certificate)"

func (p *parser) requestableKey() error {
	size := p.Key.Size
	if !p.defaults.PodCertificates || p.Key.Algorithm != RSA || size == 3072 || size == 4096 {
		return nil
	}
	absent := ""
	if !p.gives("key-size") && p.Profile["key-size"] == "" {
		absent = " if absent"
	}
	return problem(p.origin("key-size"), `is %d%s, and `+byPodCertificates+`, which take RSA keys of 3072 or 4096 bits: set %s: "3072", or %s: ECDSA`,
		size, absent, p.key("key-size"), p.key("key-algorithm"))
}

func (p *parser) requestableDuration() error {
	const shortest, longest = time.Hour, 91 * 24 * time.Hour // Of spec.maxExpirationSeconds (kubernetes pkg/apis/certificates/types.go).
	d := p.Duration
	if !p.defaults.PodCertificates || shortest <= d && d <= longest && d%time.Second == 0 {
		return nil
	}
	return problem(p.origin("duration"), "is %s, and "+byPodCertificates+", which take 1h to 2184h (91 days), in whole seconds: set %s to one of those", d, p.key("duration"))
}

func (p *parser) requestedAsPod() error {
	if !p.defaults.PodCertificates || !p.AsPod {
		return nil
	}
	return problem(p.origin("use-token-request"), "is true, and "+byPodCertificates+", as the node and never as the pod: set %s: \"false\"", p.key("use-token-request"))
}

// origin is an attribute's key, with a word where its value is not the pod's.
func (p *parser) origin(name string) string {
	if !p.gives(name) && p.Profile[name] != "" {
		return p.key(name) + " (of the profile)"
	}
	return p.key(name)
}
