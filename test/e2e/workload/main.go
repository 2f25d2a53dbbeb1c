// Command workload is what a pod of the stories runs: it uses the certificate in its volume as an application does, and says on
// standard output what it saw.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// pause is the time between two looks at the certificate, and between two calls of the peer.
const pause = 100 * time.Millisecond

// port of the server.
const port = "8443"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Println("workload:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) == 1 && args[0] == "serve":
		if err := serve(ctx); err != nil {
			return err
		}
		watch(ctx)
		return nil
	case len(args) == 1 && args[0] == "valid":
		return valid()
	case len(args) == 4 && args[0] == "call":
		rotations, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return call(ctx, args[1], args[2], rotations)
	}
	return errors.New("say serve, valid, or call ADDRESS NAME ROTATIONS")
}

// load reads the pair, and the CA certificates with which the issuer's other certificates are checked. Files that are replaced while they are opened are gone;
// then it reads the next.
func load() (pair *tls.Certificate, roots *x509.CertPool, err error) {
	for range 10 {
		if pair, roots, err = loadOnce(); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return pair, roots, err
}

// loadOnce reads the one file that is always a pair, or what is in its place, and the CA certificates.
func loadOnce() (*tls.Certificate, *x509.CertPool, error) {
	bundle, err := readPair()
	if err != nil {
		return nil, nil, err
	}
	pair, err := tls.X509KeyPair(bundle, bundle)
	if err != nil {
		return nil, nil, err
	}
	ca, err := os.ReadFile("/tls/ca.crt")
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, nil, errors.New("ca.crt has no certificate")
	}
	return &pair, roots, nil
}

// readPair reads certificate and key. If $TWO_FILES is set they are in two files, of which ..data leads to those of one time.
func readPair() ([]byte, error) {
	if os.Getenv("TWO_FILES") == "" {
		return os.ReadFile("/tls/credential-bundle.pem")
	}
	dir, err := filepath.EvalSymlinks("/tls/..data")
	if err != nil {
		return nil, err
	}
	crt, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	if err != nil {
		return nil, err
	}
	key, err := os.ReadFile(filepath.Join(dir, "tls.key"))
	return append(crt, key...), err
}

// config is a TLS configuration with what is in the volume now.
func config() (*tls.Config, error) {
	pair, roots, err := load()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{*pair}, RootCAs: roots, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13,
	}, nil
}

// serve accepts connections with mutual TLS until ctx ends.
func serve(ctx context.Context) error {
	listener, err := tls.Listen("tcp", ":"+port, &tls.Config{
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return config() },
		MinVersion:         tls.VersionTLS13,
	})
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go answer(conn)
		}
	}()
	return nil
}

// answer sends one line to whoever has proven who it is.
func answer(conn net.Conn) {
	defer conn.Close() //nolint:errcheck // The peer sees it.
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Write([]byte("hello\n")); err != nil {
		fmt.Println("server:", err)
	}
}

// valid says whether the certificate is valid now.
func valid() error {
	pair, _, err := load()
	if err == nil && time.Now().After(pair.Leaf.NotAfter) {
		err = fmt.Errorf("expired at %s", pair.Leaf.NotAfter)
	}
	return err
}

// watch tells of every certificate that it sees, and of every time that there is no valid one.
func watch(ctx context.Context) {
	last := ""
	for ctx.Err() == nil {
		pair, _, err := load()
		switch {
		case err != nil:
			fmt.Println("trouble:", err)
		case time.Now().After(pair.Leaf.NotAfter):
			fmt.Println("trouble: expired at", pair.Leaf.NotAfter)
		case pair.Leaf.SerialNumber.Text(16) != last:
			last = pair.Leaf.SerialNumber.Text(16)
			fmt.Println("certificate", last, "until", pair.Leaf.NotAfter.Format(time.RFC3339))
		}
		sleep(ctx)
	}
}

// call opens connection after connection to a peer, which must prove its name, until certificates of both sides have changed so many times.
func call(ctx context.Context, address, name string, rotations int) error {
	ours, theirs := map[string]bool{}, map[string]bool{}
	calls := 0
	for ; len(ours) <= rotations || len(theirs) <= rotations; calls++ {
		if err := once(ctx, address, name, ours, theirs); err != nil {
			return fmt.Errorf("after %d calls: %w", calls, err)
		}
		sleep(ctx)
	}
	fmt.Printf("%d calls, %d certificates of ours, %d of theirs\n", calls, len(ours), len(theirs))
	return nil
}

// once is one connection; it notes the certificates of both sides.
func once(ctx context.Context, address, name string, ours, theirs map[string]bool) error {
	cfg, err := config()
	if err != nil {
		return err
	}
	cfg.ServerName = name
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: cfg}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(address, port))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // It was read to its end.
	if _, err := conn.Read(make([]byte, 16)); err != nil {
		return err
	}
	ours[cfg.Certificates[0].Leaf.SerialNumber.Text(16)] = true
	theirs[conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.Text(16)] = true //nolint:forcetypeassert // tls.Dialer says so.
	return nil
}

func sleep(ctx context.Context) {
	select {
	case <-time.After(pause):
	case <-ctx.Done():
	}
}
