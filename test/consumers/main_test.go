// Package consumers has real programs read the files of a volume: the examples of manifests/examples as they are, and the keystores of Java and
// OpenSSL. The node plugin is the real binary, with the embedded CA.
package consumers

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/test/example"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// publish publishes a volume with these attributes.
func publish(t *testing.T, n *example.Node, attributes map[string]string) string {
	t.Helper()
	readOnly := true
	csi := &corev1.CSIVolumeSource{ReadOnly: &readOnly, VolumeAttributes: map[string]string{"csi.mayfly.dev/dns-names": "localhost"}}
	for key, value := range attributes {
		csi.VolumeAttributes["csi.mayfly.dev/"+key] = value
	}
	return n.Publish(t, example.Pod{Name: "web"}, corev1.Volume{Name: "tls", VolumeSource: corev1.VolumeSource{CSI: csi}})
}

// run runs a command and returns what it prints.
func run(t *testing.T, argv ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", argv, err, out)
	}
	return string(out)
}

// program is the image of a program of this module, static as an image without a library needs it.
func program(t *testing.T, name string) example.Image {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", name, err, out)
	}
	return example.Image{Files: map[string]string{"/" + name: path}}
}

// A server is who shows its certificate on a port of a container.
type server struct {
	port   int
	name   string               // It must be in the certificate.
	file   string               // The certificate's, in PEM, to compare it with; empty: there is none.
	before func(net.Conn) error // What is said on the connection first.
	client string               // A volume with the client's own pair; empty: it has none.
}

// served is the certificate that a server shows now, to a client that trusts the roots.
func (s server) served(c *example.Container, roots *x509.CertPool) (*x509.Certificate, error) {
	conn, err := c.Dial(s.port)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // Nothing more is said.
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if s.before != nil {
		if err := s.before(conn); err != nil {
			return nil, err
		}
	}
	client := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: s.name, MinVersion: tls.VersionTLS12, GetClientCertificate: s.pair})
	if err := client.Handshake(); err != nil {
		return nil, err
	}
	if s.client != "" { // Since TLS 1.3 the server's word on the client's certificate comes with what it answers.
		if _, err := client.Write([]byte("HEAD / HTTP/1.0\r\n\r\n")); err != nil {
			return nil, err
		}
		if _, err := client.Read(make([]byte, 1)); err != nil {
			return nil, err
		}
	}
	return client.ConnectionState().PeerCertificates[0], nil
}

// pair is the client's.
func (s server) pair(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if s.client == "" {
		return &tls.Certificate{}, nil
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(s.client, "tls.crt"), filepath.Join(s.client, "tls.key"))
	return &pair, err
}

// rotates demands that a server shows the certificate of its volume, and after each of two renewals the next one, with nothing done by the test.
func rotates(t *testing.T, n *example.Node, c *example.Container, s server) {
	t.Helper()
	roots, dir := n.Roots(t), c.Volumes["tls"]
	var before *x509.Certificate
	for _, what := range []string{"the first certificate", "the second certificate", "the third certificate"} {
		example.Until(t, what+" to be served", func() error {
			now, err := s.served(c, roots)
			if err == nil && now.Equal(before) {
				err = errors.New("the one before is served")
			}
			if err == nil && s.file != "" {
				err = isIn(now, filepath.Join(dir, s.file))
			}
			if err == nil {
				before = now
			}
			return err
		})
	}
}

func isIn(certificate *x509.Certificate, file string) error {
	now, err := leaf(file)
	if err == nil && !now.Equal(certificate) {
		err = fmt.Errorf("%s has another certificate", file)
	}
	return err
}

// leaf is the first certificate of a file.
func leaf(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, fmt.Errorf("%s has no certificate", file)
}
