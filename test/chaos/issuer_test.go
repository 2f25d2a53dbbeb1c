package chaos

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	mathrand "math/rand/v2"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/mayfly-csi/mayfly/test/alarm"
)

// A mood is what an issuer does with requests.
type mood string

const (
	signs   mood = "signs"
	delays  mood = "delays" // It signs after up to three minutes.
	mute    mood = "is silent"
	denies  mood = "denies"
	fails   mood = "fails"
	rejects mood = "calls them invalid"
	forges  mood = "forges" // It gives chains of every wrong kind.
	deletes mood = "deletes them"
)

// wrongChains are the answers of an issuer that forges. Some are right, but unusual.
func wrongChains() []func(p *pki, l *leaf) {
	return []func(*pki, *leaf){
		func(p *pki, l *leaf) { l.template.PublicKey = p.stranger.key.Public() },
		func(_ *pki, l *leaf) { l.later(-time.Second) },
		func(_ *pki, l *leaf) { l.later(5 * time.Second) },
		func(_ *pki, l *leaf) { l.template.NotBefore = l.now.Add(30 * time.Minute); l.later(2 * time.Hour) },
		func(_ *pki, l *leaf) { l.template.NotBefore = l.now.Add(4 * time.Minute); l.later(time.Hour) },
		func(_ *pki, l *leaf) { l.template.DNSNames = []string{"other"} },
		func(_ *pki, l *leaf) { l.template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning} },
		func(_ *pki, l *leaf) { l.template.IsCA = true },
		func(p *pki, l *leaf) { l.issuer.key = p.stranger.key },
		func(p *pki, l *leaf) { l.issuer, l.chain = p.stranger, nil },
		func(p *pki, l *leaf) { l.issuer, l.chain, l.ca = p.stranger, nil, pemOf(p.stranger.certificate) },
		func(p *pki, l *leaf) { l.ca = pemOf(p.stranger.certificate) },
		func(_ *pki, l *leaf) { l.chain = nil },
		func(p *pki, l *leaf) { l.chain = append(l.chain, pemOf(p.stranger.certificate)...) },
		func(_ *pki, l *leaf) { l.ca = []byte("garbage") },
		func(_ *pki, l *leaf) { l.ca = nil },
		func(p *pki, l *leaf) { // The intermediate ends before the certificate.
			l.issuer = p.issue(p.root, "brief", l.now.Add(3*time.Minute))
			l.chain = pemOf(l.issuer.certificate)
		},
		func(p *pki, l *leaf) { // And has ended.
			l.issuer = p.issue(p.root, "ended", l.now.Add(-time.Minute))
			l.chain = pemOf(l.issuer.certificate)
		},
		func(_ *pki, l *leaf) { l.edit = func([]byte) []byte { return []byte("\n") } },
		func(_ *pki, l *leaf) { l.edit = func([]byte) []byte { return []byte("garbage") } },
		func(_ *pki, l *leaf) { l.edit = func([]byte) []byte { return make([]byte, 1<<20+1) } },
		func(_ *pki, l *leaf) { l.edit = func(chain []byte) []byte { return chain[:len(chain)-40] } },
		func(_ *pki, l *leaf) { // The leaf last.
			l.edit = func(chain []byte) []byte {
				_, rest := pem.Decode(chain)
				return append(rest, chain[:len(chain)-len(rest)]...)
			}
		},
	}
}

// consider lets the issuer of a request decide on it, if it is in the mood. s.mu must be held.
func (s *apiServer) consider(req *request) {
	of := req.OwnerReferences[0].Name
	delay := time.Duration(s.draw("decide "+of, 500)) * time.Millisecond
	switch s.moods[req.Spec.IssuerRef.Name] {
	case mute:
		return
	case delays:
		delay = time.Duration(s.draw("delay "+of, 180_000)) * time.Millisecond
	}
	time.AfterFunc(delay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.requests[req.Name] == req && !req.decided {
			s.answer(req, of)
		}
	})
}

// answer decides on a request. s.mu must be held.
func (s *apiServer) answer(req *request, of string) {
	const ready = cmapi.CertificateRequestConditionReady
	switch mood := s.moods[req.Spec.IssuerRef.Name]; mood {
	case mute: // It became so meanwhile.
	case denies:
		s.decide(req, cmapi.CertificateRequestConditionDenied, "Denied", "the mood "+string(mood))
	case fails:
		s.decide(req, ready, cmapi.CertificateRequestReasonFailed, "the mood "+string(mood))
	case rejects:
		s.decide(req, cmapi.CertificateRequestConditionInvalidRequest, "Invalid", "the mood "+string(mood))
	case deletes:
		s.remove(req.Name)
	default:
		edit := func(*pki, *leaf) {}
		if all := wrongChains(); mood == forges {
			edit = all[s.draw("forge "+of, len(all))]
		}
		req.Status.Certificate, req.Status.CA = s.pki.sign(&req.CertificateRequest, edit)
		s.decide(req, ready, cmapi.CertificateRequestReasonIssued, "")
	}
}

// setMood changes what an issuer does, also with the requests that it has.
func (s *apiServer) setMood(issuer string, m mood) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.moods[issuer] = m
	for _, req := range s.requests {
		if req.Spec.IssuerRef.Name == issuer && !req.decided {
			s.consider(req)
		}
	}
}

// An authority is a CA.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// A pki has the CAs of the world.
type pki struct {
	clock                        *alarm.Clock
	root, intermediate, stranger authority
}

// A leaf is a certificate that is about to be signed, and what is sent with it.
type leaf struct {
	now       time.Time
	template  *x509.Certificate
	issuer    authority
	chain, ca []byte
	edit      func(chain []byte) []byte
}

// later sets when it ends.
func (l *leaf) later(d time.Duration) { l.template.NotAfter = l.now.Add(d) }

func newPKI(clock *alarm.Clock) *pki {
	p := &pki{clock: clock}
	end := clock.Now().AddDate(10, 0, 0)
	p.root = p.issue(authority{}, "root", end)
	p.stranger = p.issue(authority{}, "stranger", end)
	p.intermediate = p.issue(p.root, "intermediate", end)
	return p
}

// issue makes a CA, under no other one if that is the zero authority.
func (p *pki) issue(parent authority, name string, end time.Time) authority {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: p.clock.Now().AddDate(0, -1, 0), NotAfter: end,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, PublicKey: key.Public(),
	}
	own := authority{c, key}
	if parent.key == nil {
		parent = own
	}
	own.certificate = certify(c, parent)
	return own
}

// certify signs a certificate.
func certify(template *x509.Certificate, by authority) *x509.Certificate {
	parent := *by.certificate
	parent.PublicKey = nil // It may be another one's.
	der, err := x509.CreateCertificate(rand.Reader, template, &parent, template.PublicKey, by.key)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c
}

// newSerial makes a serial number that has the time, which is not that of the wall clock.
func newSerial() *big.Int {
	n := new(big.Int).Lsh(big.NewInt(time.Now().UnixNano()), 32)
	return n.Or(n, big.NewInt(int64(mathrand.Uint32())))
}

// signedAt returns when a certificate was signed.
func signedAt(c *x509.Certificate) time.Time {
	return time.Unix(0, new(big.Int).Rsh(c.SerialNumber, 32).Int64())
}

// sign signs a request, as edit has the answer.
func (p *pki) sign(cr *cmapi.CertificateRequest, edit func(*pki, *leaf)) (chain, ca []byte) {
	block, _ := pem.Decode(cr.Spec.Request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		panic(err)
	}
	now := p.clock.Now()
	l := &leaf{
		now: now,
		template: &x509.Certificate{
			SerialNumber: newSerial(),
			Subject:      csr.Subject, DNSNames: csr.DNSNames, IPAddresses: csr.IPAddresses, URIs: csr.URIs, PublicKey: csr.PublicKey,
			NotBefore: now.Add(-time.Minute), NotAfter: now.Add(cr.Spec.Duration.Duration), KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true,
		},
		issuer: p.intermediate, chain: pemOf(p.intermediate.certificate), ca: pemOf(p.root.certificate),
		edit: func(chain []byte) []byte { return chain },
	}
	edit(p, l)
	return l.edit(append(pemOf(certify(l.template, l.issuer)), l.chain...)), l.ca
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
