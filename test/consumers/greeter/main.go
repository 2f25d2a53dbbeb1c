// Greeter is the server and the client of manifests/examples/grpc.yaml: both show a certificate, and gRPC reads it again when it was renewed.
package main

import (
	"context"
	"crypto/tls"
	"flag"
	"fmt"
	"log"
	"net"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/tls/certprovider"
	"google.golang.org/grpc/credentials/tls/certprovider/pemfile"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/security/advancedtls"
)

func main() {
	listen := flag.String("serve", "", "address to serve on")
	server := flag.String("call", "", "address of the server to call")
	every := flag.Duration("every", time.Second, "time between two calls")
	dir := flag.String("tls", "/tls", "directory with tls.crt, tls.key and ca.crt")
	flag.Parse()
	err := fmt.Errorf("--serve or --call is needed")
	switch {
	case *listen != "":
		err = serve(*listen, *dir)
	case *server != "":
		err = call(*server, *dir, *every)
	}
	log.Fatal(err)
}

// files are read again every second, in a directory whose files change together.
func files(dir string) (certprovider.Provider, error) {
	return pemfile.NewProvider(pemfile.Options{
		CertFile:        filepath.Join(dir, "tls.crt"),
		KeyFile:         filepath.Join(dir, "tls.key"),
		RootFile:        filepath.Join(dir, "ca.crt"),
		RefreshDuration: time.Second,
	})
}

func options(dir string) (*advancedtls.Options, error) {
	provider, err := files(dir)
	if err != nil {
		return nil, err
	}
	return &advancedtls.Options{
		IdentityOptions: advancedtls.IdentityCertificateOptions{IdentityProvider: provider},
		RootOptions:     advancedtls.RootCertificateOptions{RootProvider: provider},
		MinTLSVersion:   tls.VersionTLS12,
		MaxTLSVersion:   tls.VersionTLS13,
	}, nil
}

func serve(listen, dir string) error {
	o, err := options(dir)
	if err != nil {
		return err
	}
	o.RequireClientCert, o.VerificationType = true, advancedtls.CertVerification
	creds, err := advancedtls.NewServerCreds(o)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	// A connection keeps the certificates that it began with: it must end before they do.
	s := grpc.NewServer(grpc.Creds(creds), grpc.UnaryInterceptor(greet))
	grpc_health_v1.RegisterHealthServer(s, health.NewServer())
	return s.Serve(l)
}

func greet(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	if p, ok := peer.FromContext(ctx); ok {
		log.Printf("called by %s", serial(p))
	}
	return handler(ctx, req)
}

func call(server, dir string, every time.Duration) error {
	o, err := options(dir)
	if err != nil {
		return err
	}
	o.VerificationType = advancedtls.CertAndHostVerification
	creds, err := advancedtls.NewClientCreds(o)
	if err != nil {
		return err
	}
	for ; ; time.Sleep(every) {
		if err := once(server, creds); err != nil {
			log.Print(err)
		}
	}
}

// once calls over a connection of its own.
func once(server string, creds credentials.TransportCredentials) error {
	conn, err := grpc.NewClient(server, grpc.WithTransportCredentials(creds))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var p peer.Peer
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.Peer(&p)); err != nil {
		return err
	}
	log.Printf("called %s", serial(&p))
	return nil
}

// serial is the number of the peer's certificate.
func serial(p *peer.Peer) string {
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return "nobody"
	}
	return info.State.PeerCertificates[0].SerialNumber.Text(16)
}
