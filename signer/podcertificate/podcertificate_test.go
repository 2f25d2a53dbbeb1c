package podcertificate

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A party has a key, and signs for others.
type party struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// issue makes a certificate for a name; without an issuer it signs itself.
func issue(t *testing.T, name string, serial int64, keyID []byte, by *party) party {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, SubjectKeyId: keyID,
	}
	parent := party{template, key}
	if by != nil {
		parent = *by
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.certificate, key.Public(), parent.key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return party{certificate, key}
}

func TestTheChainAndItsCA(t *testing.T) {
	root := issue(t, "root", 1, []byte("1"), nil)
	other := issue(t, "other root", 2, nil, nil) // Without a key identifier, as old roots are.
	middle := issue(t, "intermediate", 3, []byte("3"), &root)
	lower := issue(t, "lower intermediate", 4, []byte("4"), &middle)
	successor := issue(t, "root", 5, []byte("5"), &root) // Of the root's name, with another key: it is no root.
	leaf := issue(t, "leaf", 6, []byte("6"), &lower)
	alone := issue(t, "alone", 7, []byte("7"), nil)
	text := func(all ...party) (text string) {
		for _, p := range all {
			text += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.certificate.Raw}))
		}
		return text
	}
	for name, row := range map[string]struct{ from, chain, ca string }{
		"a root":                               {text(leaf, root), text(leaf), text(root)},
		"intermediates and a root":             {text(leaf, lower, middle, root), text(leaf, lower, middle), text(root)},
		"two roots":                            {text(leaf, lower, middle, root, other), text(leaf, lower, middle), text(root, other)},
		"a root in between":                    {text(leaf, other, lower), text(leaf, lower), text(other)},
		"intermediates alone":                  {text(leaf, lower, middle), text(leaf, lower, middle), text(middle)},
		"a root's key signed by another":       {text(leaf, successor, root), text(leaf, successor), text(root)},
		"the leaf alone":                       {text(leaf), text(leaf), ""},
		"a leaf that signed itself":            {text(alone), text(alone), ""},
		"a leaf that signed itself, as its CA": {text(alone, alone), text(alone), text(alone)},
		"words between certificates":           {"# leaf\n" + text(leaf) + "# root\n" + text(root), text(leaf), text(root)},
		"a block that is no certificate":       {text(leaf) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", text(leaf) + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", ""},
		"no PEM":                               {"garbage", "garbage", ""},
		"nothing":                              {"", "", ""},
	} {
		got := split(row.from)
		if string(got.Chain) != row.chain || string(got.CA) != row.ca {
			t.Errorf("%s:\nchain %s\nCA %s", name, got.Chain, got.CA)
		}
	}
}

// Go checks no signature with SHA-1, which roots of old have.
func TestARootOfOld(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "old"}, SignatureAlgorithm: x509.SHA1WithRSA, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, old := issue(t, "leaf", 2, nil, nil), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	if got := split(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.certificate.Raw})) + old); string(got.CA) != old {
		t.Errorf("CA %s", got.CA)
	}
}

// A Kubernetes without the API answers "404 page not found": it is older than 1.37, or has it switched off.
func TestAKubernetesWithoutTheAPI(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Impersonate-User"); got != "system:node:node-a" {
			t.Errorf("%s %s as %q", r.Method, r.URL, got)
		}
		if strings.Contains(r.URL.Path, resource) {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if _, err := w.Write([]byte(`{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"n","uid":"1"}}`)); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	s, err := New(&rest.Config{Host: server.URL, Transport: transport}, "node-a")
	if err != nil {
		t.Fatal(err)
	}
	req := signer.Request{Attempt: signer.Attempt{ID: "a1", Pod: signer.Pod{Namespace: "shop", Name: "web", UID: "1", ServiceAccount: "web"}}, Duration: time.Hour}
	_, err = s.Sign(t.Context(), req)
	want := "signer unavailable: create PodCertificateRequest shop/web-a1-pcr: the server could not find the requested resource (post podcertificaterequests.certificates.k8s.io): " +
		"--signer=pod-certificate needs PodCertificateRequests in certificates.k8s.io/v1, which Kubernetes has from 1.37 on"
	if err == nil || err.Error() != want {
		t.Errorf(" got %v\nwant %s", err, want)
	}
}

// The request's text is that of Kubernetes' type, and so is what is read of the answer.
func TestTheTextOfARequest(t *testing.T) {
	s, err := New(&rest.Config{Host: "http://api"}, "node-a")
	if err != nil {
		t.Fatal(err)
	}
	req := signer.Request{
		Attempt: signer.Attempt{ID: "a1", Pod: signer.Pod{Namespace: "shop", Name: "web", UID: "1", ServiceAccount: "default"}},
		Volume:  "csi-1", CSR: []byte("csr"), Duration: time.Hour,
	}
	text, err := json.Marshal(s.object(req, uids{node: "2", account: "3"}))
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	var got certificatesv1.PodCertificateRequest
	if err := strict.Decode(&got); err != nil {
		t.Fatal(err)
	}
	seconds := int32(3600)
	want := certificatesv1.PodCertificateRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "PodCertificateRequest"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-a1-pcr", Namespace: "shop",
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "1"}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{
			SignerName: signer.PodCertificateSigner, PodName: "web", PodUID: "1", ServiceAccountName: "default", ServiceAccountUID: "3",
			NodeName: "node-a", NodeUID: "2", MaxExpirationSeconds: &seconds, StubPKCS10Request: req.CSR,
			UnverifiedUserAnnotations: map[string]string{signer.VolumeAnnotation: "csi-1"},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for kind, want := range map[string]string{
		certificatesv1.PodCertificateRequestConditionTypeIssued: "<nil>",
		certificatesv1.PodCertificateRequestConditionTypeDenied: "request denied: PodCertificateRequest shop/web-a1-pcr: Why: text",
		certificatesv1.PodCertificateRequestConditionTypeFailed: "signing failed: PodCertificateRequest shop/web-a1-pcr: Why: text",
	} {
		got.Status = certificatesv1.PodCertificateRequestStatus{CertificateChain: "chain", Conditions: []metav1.Condition{
			{Type: kind, Status: metav1.ConditionTrue, Reason: "Why", Message: "text", LastTransitionTime: metav1.Now()},
		}}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		read := &podCertificateRequest{}
		if err := json.Unmarshal(text, read); err != nil {
			t.Fatal(err)
		}
		answer, err, decided := decide(read)
		if fmt.Sprint(err) != want || !decided || (string(answer.Chain) == "chain") != (err == nil) {
			t.Errorf("%s: %+v, %v, decided %v", kind, answer, err, decided)
		}
	}
}

// Where the API is switched off, or older than v1, nodes have no right to it. The API server's words are those of a real one, but for 1.35's, which were read in its source.
func TestHints(t *testing.T) {
	group := schema.GroupResource{Group: "certificates.k8s.io", Resource: resource}
	forbidden := func(text string) error { return apierrors.NewForbidden(group, "", errors.New(text)) }
	for _, row := range []struct {
		err  error
		want string
	}{
		{forbidden(`User "system:node:node-a" cannot create resource "podcertificaterequests" in API group "certificates.k8s.io" in the namespace "shop"`), "which Kubernetes has from 1.37 on"},
		{forbidden(`User "system:node:node-b" cannot create resource "podcertificaterequests" in API group "certificates.k8s.io" in the namespace "shop"`), ""},
		{forbidden(`User "system:serviceaccount:mayfly-system:mayfly" cannot impersonate resource "users" in API group "" at the cluster scope`), "which Kubernetes has from 1.37 on"},
		{apierrors.NewNotFound(schema.GroupResource{Resource: "namespaces"}, "shop"), ""},
		{apierrors.NewServiceUnavailable("impersonate:associated-node"), ""},
		{nil, ""},
	} {
		got := hint(row.err, "node-a")
		if row.want == "" && got != row.err || row.want != "" && (!strings.HasSuffix(got.Error(), row.want) || !errors.Is(got, row.err)) { //nolint:errorlint // It is the same.
			t.Errorf("%v: %v", row.err, got)
		}
	}
}

// A right that the node plugin lacks may be granted later. It is asked for as the node plugin itself, which needs no right for that, and not as its node.
func TestARightThatIsMissing(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if !strings.HasSuffix(r.URL.Path, "/selfsubjectaccessreviews") {
			w.WriteHeader(http.StatusForbidden)
			_, _ = w.Write([]byte(`{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","message":"cannot impersonate:associated-node","code":403}`))
			return
		}
		if got := r.Header.Get("Impersonate-User"); got != "" {
			t.Errorf("asked as %q", got)
		}
		var review authorizationv1.SelfSubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		a := review.Spec.ResourceAttributes
		right := fmt.Sprintf("%s %s.%s in %s", a.Verb, a.Resource, a.Group, a.Namespace)
		asked = append(asked, right)
		review.Status.Allowed = len(asked) > 1 // The first one is refused at first.
		if err := json.NewEncoder(w).Encode(review); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	s, err := New(&rest.Config{Host: server.URL, Transport: transport}, "node-a")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Sign(t.Context(), signer.Request{Attempt: signer.Attempt{ID: "a1", Pod: signer.Pod{Namespace: "shop", Name: "web", UID: "1", ServiceAccount: "web"}}})
	var refused *signer.Error
	if !errors.As(err, &refused) || refused.Kind != signer.Denied || refused.Mended == nil {
		t.Fatalf("got %+v", err)
	}
	if err := refused.Mended(t.Context(), nil); err != nil {
		t.Error(err)
	}
	const first = "impersonate:associated-node nodes.authentication.k8s.io in shop"
	want := []string{
		first, first, "impersonate-on:associated-node:get nodes. in shop", "impersonate-on:associated-node:get serviceaccounts. in shop",
		"impersonate-on:associated-node:create podcertificaterequests.certificates.k8s.io in shop",
	}
	if !slices.Equal(asked, want) {
		t.Errorf("asked for the rights to %q", asked)
	}
}
