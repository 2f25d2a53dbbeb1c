// Web is the server of manifests/examples/go.yaml: it serves HTTPS with the certificate of a bundle that is renewed while it runs.
package main

import (
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"sync"
	"time"
)

func main() {
	listen := flag.String("listen", ":8443", "address to serve on")
	path := flag.String("bundle", "/tls/credential-bundle.pem", "private key and certificate chain, in one file")
	flag.Parse()
	b := &bundle{path: *path}
	if _, err := b.certificate(nil); err != nil {
		log.Fatal(err)
	}
	server := &http.Server{
		Addr:              *listen,
		ReadHeaderTimeout: 10 * time.Second,
		TLSConfig:         &tls.Config{GetCertificate: b.certificate, MinVersion: tls.VersionTLS12},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintln(w, "hello")
		}),
	}
	log.Fatal(server.ListenAndServeTLS("", ""))
}

// A bundle is a file with a private key and its certificate chain, which is replaced now and then.
type bundle struct {
	path string

	mu   sync.Mutex
	seen os.FileInfo
	pair *tls.Certificate
}

// certificate is the one of the file as it is now. Where it can't be read, the one before stays.
func (b *bundle) certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now, err := os.Stat(b.path)
	if err == nil && b.seen != nil && os.SameFile(now, b.seen) {
		return b.pair, nil
	}
	text, err := os.ReadFile(b.path)
	if err == nil {
		var pair tls.Certificate
		if pair, err = tls.X509KeyPair(text, text); err == nil {
			b.seen, b.pair = now, &pair
		}
	}
	if b.pair != nil {
		return b.pair, nil
	}
	return nil, fmt.Errorf("read the certificate: %w", err)
}
