package consumers

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/test/example"
)

func TestJavaReadsTheStores(t *testing.T) {
	t.Parallel()
	n := example.NewNode(t)
	for _, algorithms := range []string{"Modern2023", "LegacyDES", "LegacyRC2"} {
		t.Run(algorithms, func(t *testing.T) {
			dir := publish(t, n, map[string]string{"layout": "pkcs12,jks", "keystore-algorithms": algorithms, "keystore-alias": "web"})
			for store, want := range map[string]string{
				"keystore.p12": "PrivateKeyEntry", "truststore.p12": "trustedCertEntry",
				"keystore.jks": "PrivateKeyEntry", "truststore.jks": "trustedCertEntry",
			} {
				out := run(t, "keytool", "-list", "-v", "-keystore", filepath.Join(dir, store), "-storepass", "changeit")
				alias := "Alias name: " + map[string]string{"PrivateKeyEntry": "web", "trustedCertEntry": "ca-1"}[want] + "\n"
				if !strings.Contains(out, want) || !strings.Contains(out, alias) || !strings.Contains(out, "Your keystore contains 1 entry") {
					t.Errorf("%s:\n%s", store, out)
				}
			}
		})
	}
}

func TestOpenSSLReadsTheFiles(t *testing.T) {
	t.Parallel()
	dir := publish(t, example.NewNode(t), map[string]string{"layout": "pem,pkcs12,combined,istio", "keystore-password": "secret"})
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

// Postgres refuses a key that others than its user can read, unless it is root's and readable by a group (its be-secure-common.c,
// check_ssl_key_file_permissions). The example has the second; this is the first.
func TestPostgresWithAKeyOfItsOwn(t *testing.T) {
	t.Parallel()
	e := example.Read(t, "postgres")
	volume := volumeOf(t, e, "postgres")
	volume.VolumeAttributes["csi.mayfly.dev/uid"] = "999"
	volume.VolumeAttributes["csi.mayfly.dev/mode"] = "0600"
	n := example.NewNode(t)
	rotates(t, n, n.Run(t, e, "postgres", postgres(t), nil), database)
}

var database = server{port: 5432, name: "postgres.default.svc", file: "tls.crt", before: askForTLS}

// TestExamples runs each example and demands that it serves the certificate of its volume, and the next one after its renewal: with the command,
// the configuration and the attributes of the manifest.
func TestExamples(t *testing.T) {
	t.Parallel()
	tests := map[string]func(*testing.T, example.Example){
		"envoy": envoy,
		"go": func(t *testing.T, e example.Example) {
			serves(t, e, "web", program(t, "web"), server{port: 8443, name: "web.default.svc", file: "credential-bundle.pem"})
		},
		"grpc": greeter,
		"haproxy": func(t *testing.T, e example.Example) {
			serves(t, e, "haproxy", example.Image{}, server{port: 8443, name: "haproxy.default.svc", file: "combined.pem"})
		},
		"java": func(t *testing.T, e example.Example) {
			n := example.NewNode(t)
			client := publish(t, n, map[string]string{"key-usages": "digital signature,client auth"})
			rotates(t, n, n.Run(t, e, "tomcat", tomcat, nil), server{port: 8443, name: "tomcat.default.svc", client: client})
		},
		"nginx": func(t *testing.T, e example.Example) {
			serves(t, e, "nginx", example.Image{}, server{port: 8443, name: "nginx.default.svc", file: "tls.crt"})
		},
		"postgres": func(t *testing.T, e example.Example) { serves(t, e, "postgres", postgres(t), database) },
	}
	for _, name := range example.Names(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := example.Read(t, name)
			if test, ok := tests[name]; ok {
				test(t, e)
			} else if _, err := os.Stat(filepath.Join(name, name+"_test.go")); err != nil {
				t.Errorf("%s.yaml is run by no test, here or in a module of its own", name)
			}
		})
	}
}

// serves runs a workload of the example with a node of its own.
func serves(t *testing.T, e example.Example, workload string, image example.Image, s server) {
	t.Helper()
	n := example.NewNode(t)
	rotates(t, n, n.Run(t, e, workload, image, nil), s)
}

// tomcat is Debian's in the place of the image's.
var tomcat = example.Image{
	Files: map[string]string{
		"/usr/local/tomcat/bin": "/usr/share/tomcat10/bin", "/usr/local/tomcat/lib": "/usr/share/tomcat10/lib",
		"/usr/local/java": "/usr/share/java", // Where their links lead.
	},
	Env: []string{"PATH=/usr/local/tomcat/bin:/usr/bin:/bin", "CATALINA_HOME=/usr/local/tomcat"},
}

// postgres is Debian's, with an entry point that does what the image's does: it makes the data directory, and then it is the command.
func postgres(t *testing.T) example.Image {
	t.Helper()
	bin, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(bin) == 0 {
		t.Fatal("Postgres is not installed")
	}
	return example.Image{
		Texts: map[string]string{
			"/usr/local/bin/docker-entrypoint.sh": "#!/bin/sh\nset -e\n" +
				"[ -s \"$PGDATA/PG_VERSION\" ] || initdb --no-sync --username=postgres\nexec \"$@\"\n",
			"/etc/passwd": "postgres:x:999:999::/var/lib/postgresql:/bin/bash\n",
		},
		Env: []string{"PATH=" + bin[0] + ":/usr/local/bin:/usr/bin:/bin", "POSTGRES_PASSWORD=secret"},
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

// greeter has server and client call each other over a renewal of both.
func greeter(t *testing.T, e example.Example) {
	n, image := example.NewNode(t), program(t, "greeter")
	server := n.Run(t, e, "greeter", image, nil)
	caller := n.Run(t, e, "caller", image, server)
	for range 2 {
		for _, sides := range [][2]*example.Container{{caller, server}, {server, caller}} {
			example.Until(t, "the certificates that are in the volumes to be used", func() error {
				now, err := leaf(filepath.Join(sides[1].Volumes["tls"], "tls.crt"))
				if err == nil && !strings.Contains(sides[0].Output(t), now.SerialNumber.Text(16)) {
					err = errors.New("the other side has not seen it")
				}
				return err
			})
		}
		example.Renewed(t, server.Volumes["tls"])
		example.Renewed(t, caller.Volumes["tls"])
	}
}

// volumeOf is the CSI volume of a workload.
func volumeOf(t *testing.T, e example.Example, workload string) *corev1.CSIVolumeSource {
	t.Helper()
	for _, pod := range e.Pods {
		for _, v := range pod.Spec.Volumes {
			if pod.Name == workload && v.CSI != nil {
				return v.CSI
			}
		}
	}
	t.Fatalf("%s.yaml has no workload %s with a CSI volume", e.Name, workload)
	return nil
}
