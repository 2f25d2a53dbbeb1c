package consumers

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestJavaReadsTheStores(t *testing.T) {
	n := newNode(t)
	for _, algorithms := range []string{"modern", "legacy"} {
		t.Run(algorithms, func(t *testing.T) {
			n.t = t
			dir := n.publish(map[string]string{"layout": "pkcs12,jks", "keystore-algorithms": algorithms})
			for store, want := range map[string]string{
				"keystore.p12": "PrivateKeyEntry", "truststore.p12": "trustedCertEntry",
				"keystore.jks": "PrivateKeyEntry", "truststore.jks": "trustedCertEntry",
			} {
				out := run(t, "keytool", "-list", "-v", "-keystore", filepath.Join(dir, store), "-storepass", "changeit")
				if !strings.Contains(out, want) || !strings.Contains(out, "Your keystore contains 1 entry") {
					t.Errorf("%s:\n%s", store, out)
				}
			}
		})
	}
}

func TestOpenSSLReadsTheFiles(t *testing.T) {
	dir := newNode(t).publish(map[string]string{"layout": "pem,pkcs12,combined,istio", "keystore-password": "secret"})
	file := func(name string) string { return filepath.Join(dir, name) }
	for _, argv := range [][]string{
		{"verify", "-CAfile", file("ca.crt"), "-verify_hostname", "localhost", file("tls.crt")},
		{"verify", "-CAfile", file("root-cert.pem"), file("cert-chain.pem")},
		{"verify", "-CAfile", file("ca.crt"), file("combined.pem")},
		{"pkey", "-in", file("combined.pem"), "-noout"},
		{"pkcs12", "-in", file("keystore.p12"), "-passin", "pass:secret", "-noout"},
	} {
		run(t, append([]string{"openssl"}, argv...)...)
	}
}

func TestNginxServesAndReloads(t *testing.T) {
	dir, at, home := newNode(t).publish(map[string]string{"duration": "15s"}), port(t), t.TempDir()
	conf := filepath.Join(home, "nginx.conf")
	write(t, conf, fmt.Sprintf(`
daemon off;
error_log stderr;
pid %[1]s/nginx.pid;
events {}
http {
  access_log off;
  client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server {
    listen 127.0.0.1:%[3]d ssl;
    ssl_certificate %[2]s/tls.crt;
    ssl_certificate_key %[2]s/tls.key;
    return 204;
  }
}
`, home, dir, at))
	nginx := start(t, nil, "nginx", "-c", conf)
	rotates(t, dir, at, nil, func() error { return nginx.Signal(syscall.SIGHUP) }) // nginx(8).
}

func TestHAProxyServesAndReloads(t *testing.T) {
	dir, at, home := newNode(t).publish(map[string]string{"duration": "15s", "layout": "pem,combined"}), port(t), t.TempDir()
	conf := filepath.Join(home, "haproxy.cfg")
	write(t, conf, fmt.Sprintf(`
defaults
  mode http
  timeout client 5s
  timeout connect 5s
  timeout server 5s
frontend web
  bind 127.0.0.1:%d ssl crt %s/combined.pem
  http-request return status 204
`, at, dir))
	haproxy := start(t, nil, "haproxy", "-W", "-db", "-f", conf)
	rotates(t, dir, at, nil, func() error { return haproxy.Signal(syscall.SIGUSR2) }) // haproxy's management guide, section 4.
}

// Postgres refuses a key that others than its user can read, unless it is root's and readable by a group (its be-secure-common.c,
// check_ssl_key_file_permissions).
func TestPostgresServesAndReloads(t *testing.T) {
	postgres := account(t, "postgres")
	for name, attributes := range map[string]map[string]string{
		"the key is its own": {"uid": fmt.Sprint(postgres.Uid), "mode": "0600"},
		"the key is root's":  {"gid": fmt.Sprint(postgres.Gid)},
	} {
		t.Run(name, func(t *testing.T) {
			attributes["duration"] = "15s"
			dir, at := newNode(t).publish(attributes), port(t)
			home, err := os.MkdirTemp("", "postgres-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(home) })
			if err := os.Chown(home, int(postgres.Uid), int(postgres.Gid)); err != nil {
				t.Fatal(err)
			}
			data := filepath.Join(home, "data")
			bin, err := filepath.Glob("/usr/lib/postgresql/*/bin")
			if err != nil || len(bin) == 0 {
				t.Fatal("Postgres is not installed")
			}
			run(t, "setpriv", fmt.Sprintf("--reuid=%d", postgres.Uid), fmt.Sprintf("--regid=%d", postgres.Gid), "--clear-groups",
				filepath.Join(bin[0], "initdb"), "--pgdata", data, "--no-sync")
			server := start(t, postgres, filepath.Join(bin[0], "postgres"), "-D", data, "-k", home, "-h", "127.0.0.1", "-p", strconv.Itoa(at),
				"-c", "ssl=on", "-c", "ssl_cert_file="+filepath.Join(dir, "tls.crt"), "-c", "ssl_key_file="+filepath.Join(dir, "tls.key"))
			rotates(t, dir, at, askForTLS, func() error { return server.Signal(syscall.SIGHUP) }) // postgres(1).
		})
	}
}

// askForTLS is how a client of Postgres begins (PostgreSQL's documentation, "Message Formats", SSLRequest).
func askForTLS(conn net.Conn) error {
	if _, err := conn.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
		return err
	}
	answer := make([]byte, 1)
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if answer[0] != 'S' {
		return errors.New("the server does not speak TLS")
	}
	return nil
}

func account(t *testing.T, name string) *syscall.Credential {
	t.Helper()
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
