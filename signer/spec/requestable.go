package spec

import (
	"time"

	"github.com/mayfly-csi/mayfly/signer/problem"
)

// Where certificates are asked for by PodCertificateRequests, what those can't say is refused
// (kubernetes pkg/apis/certificates/validation, ValidatePodCertificateRequestCreate). The error says what to write.

const byPodCertificates = "this driver asks by PodCertificateRequests (--signer=pod-certificate)"

func (p *parser) checkRequestableKey() error {
	size := p.Key.Size
	if !p.defaults.PodCertificates || p.Key.Algorithm != RSA || size == 3072 || size == 4096 {
		return nil
	}
	absent := ""
	if !p.IsSet("key-size") && p.Profile["key-size"] == "" {
		absent = " if absent"
	}
	return problem.New(p.originOf("key-size"), `is %d%s, and `+byPodCertificates+
		`, which take RSA keys of 3072 or 4096 bits: set %s: "3072", or %s: ECDSA`,
		size, absent, p.KeyOf("key-size"), p.KeyOf("key-algorithm"))
}

func (p *parser) checkRequestableDuration() error {
	// Of spec.maxExpirationSeconds (kubernetes pkg/apis/certificates/types.go).
	const shortest, longest = time.Hour, 91 * 24 * time.Hour
	d := p.Duration
	if !p.defaults.PodCertificates || shortest <= d && d <= longest && d%time.Second == 0 {
		return nil
	}
	return problem.New(p.originOf("duration"), "is %s, and "+byPodCertificates+
		", which take 1h to 2184h (91 days), in whole seconds: set %s to one of those", d, p.KeyOf("duration"))
}

// checkAsPod checks that a volume may ask as its pod: past mayfly-controller, which decides on what node plugins ask.
// The driver's operator allows that, and no pod does.
func (p *parser) checkAsPod() error {
	const name = "use-token-request"
	switch allowed := p.defaults.AsPod || p.Profile[name] == "true"; {
	case !p.AsPod:
		return nil
	case p.defaults.PodCertificates:
		return problem.New(p.originOf(name), "is true, and "+byPodCertificates+
			", as the node and never as the pod: set %s: \"false\"", p.KeyOf(name))
	case !allowed:
		return problem.New(p.KeyOf(name), "is true, and no volume asks as its pod unless the operator of this driver "+
			"says so, by --"+name+" or a profile: leave it out")
	}
	return nil
}
