package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"embed"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/template"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed templates
var templates embed.FS

// write fills in a template, which becomes a file below the cluster's directory.
func (c *Cluster) write(path, name string, data any) error {
	t, err := template.ParseFS(templates, "templates/"+name)
	if err != nil {
		return err
	}
	path = filepath.Join(c.Dir, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // Its writes are checked.
	return t.Execute(f, data)
}

// prepareControlPlane writes what the control plane's machine starts from: keys, users, services.
func (c *Cluster) prepareControlPlane() error {
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"}
	if err := c.pki.server("kube-apiserver", names, api().AsSlice(), net.IPv4(127, 0, 0, 1)); err != nil {
		return err
	}
	if err := c.pki.server("local", []string{"localhost"}, net.IPv4(127, 0, 0, 1)); err != nil {
		return err
	}
	if err := c.serviceAccountKey(); err != nil {
		return fmt.Errorf("make the service accounts' key: %w", err)
	}
	if err := c.users(); err != nil {
		return err
	}
	for _, name := range []string{"pebble.json", "audit.yaml"} {
		if err := c.write("control-plane/"+name, name, nil); err != nil {
			return err
		}
	}
	if err := c.write("control-plane/init.sh", "init.sh", map[string]string{"Name": c.ControlPlane.Name, "Dir": c.Dir}); err != nil {
		return err
	}
	return c.ControlPlane.prepare(c.controlPlane())
}

// users makes the users of the control plane, each with a kubeconfig, and the one that the API server is to the kubelets.
func (c *Cluster) users() error {
	for _, u := range []struct{ path, url, name, group string }{
		{c.Kubeconfig(), c.url(), "admin", "system:masters"},
		{c.userFile("cert-manager"), apiURL(), "cert-manager", "system:masters"},
		{c.userFile("kube-controller-manager"), apiURL(), "system:kube-controller-manager", ""},
		{c.userFile("kube-scheduler"), apiURL(), "system:kube-scheduler", ""},
	} {
		text, err := c.pki.user(u.url, u.name, u.group)
		if err != nil {
			return err
		}
		if err := os.WriteFile(u.path, text, 0o600); err != nil {
			return err
		}
	}
	crt, key, err := c.pki.client("kube-apiserver", "system:masters")
	if err != nil {
		return err
	}
	return c.pki.write("kubelet-client", crt, key)
}

func (c *Cluster) userFile(name string) string {
	return filepath.Join(c.Dir, "pki", name+".kubeconfig")
}

// serviceAccountKey is what signs the tokens of service accounts.
func (c *Cluster) serviceAccountKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(c.pki.key("service-accounts"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// controlPlane is what runs on the control plane's machine.
func (c *Cluster) controlPlane() []service {
	all := []service{
		{"etcd", []string{"/mnt/bin/etcd", "--data-dir=/var/lib/etcd", "--unsafe-no-fsync", "--log-level=warn"}},
		{"kube-apiserver", c.apiServer()},
		c.controllers(true),
		{"webhook", []string{"/mnt/bin/certmanager", "webhook", "--kubeconfig=/mnt/pki/cert-manager.kubeconfig",
			"--tls-cert-file=/mnt/pki/local.crt", "--tls-private-key-file=/mnt/pki/local.key"}},
		// Hands what comes in at the port on this machine's loopback address, the first open file after the standard ones, to the API server.
		{"door", []string{"/bin/sh", "-c", "LISTEN_PID=$$ LISTEN_FDS=1 exec /lib/systemd/systemd-socket-proxyd --connections-max=4096 127.0.0.1:443"}},
	}
	if len(c.Nodes) == 0 {
		return all
	}
	return append(all,
		service{"kube-controller-manager", []string{"/mnt/bin/kube-controller-manager", "--kubeconfig=/mnt/pki/kube-controller-manager.kubeconfig",
			"--leader-elect=false", "--use-service-account-credentials", "--service-account-private-key-file=/mnt/pki/service-accounts.key",
			"--root-ca-file=/mnt/pki/ca.crt", "--bind-address=127.0.0.1"}},
		service{"kube-scheduler", []string{"/mnt/bin/kube-scheduler", "--kubeconfig=/mnt/pki/kube-scheduler.kubeconfig",
			"--leader-elect=false", "--bind-address=127.0.0.1"}},
		service{"dns", []string{"/mnt/bin/certmanager", "dns", "--address=" + nameserver, "--zone=" + Zone + "."}},
		// Pebble waits and fails at random unless it is told not to.
		service{"pebble", []string{"/usr/bin/env", "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0",
			"/mnt/bin/pebble", "--config=/mnt/control-plane/pebble.json", "--dnsserver=" + nameserver}},
	)
}

// Zone is the DNS zone in which the ACME server sees challenges.
const Zone = "mayfly.test"

// nameserver is the one of the zone, on the control plane's machine.
const nameserver = "127.0.0.1:53"

func (c *Cluster) apiServer() []string {
	argv := []string{
		"/mnt/bin/kube-apiserver",
		"--etcd-servers=http://127.0.0.1:2379",
		"--bind-address=0.0.0.0", "--secure-port=443", "--advertise-address=" + api().String(),
		"--endpoint-reconciler-type=none", // The service's address is the server's own.
		"--service-cluster-ip-range=" + address(services, 0, subnetBits).String(),
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction", "--allow-privileged=true",
		"--client-ca-file=/mnt/pki/ca.crt",
		"--tls-cert-file=/mnt/pki/kube-apiserver.crt", "--tls-private-key-file=/mnt/pki/kube-apiserver.key",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=/mnt/pki/service-accounts.key", "--service-account-signing-key-file=/mnt/pki/service-accounts.key",
		"--kubelet-client-certificate=/mnt/pki/kubelet-client.crt", "--kubelet-client-key=/mnt/pki/kubelet-client.key",
		"--kubelet-preferred-address-types=InternalIP",
		"--request-timeout=10s", // A stop waits as long for open connections.
		"--audit-policy-file=/mnt/control-plane/audit.yaml", "--audit-log-path=/mnt/logs/control-plane/audit.log",
		"--audit-log-maxsize=64", "--audit-log-maxbackup=4", // Megabytes, files.
	}
	if len(c.Nodes) == 0 {
		argv = append(argv, "--disable-admission-plugins=ServiceAccount") // No controller makes the namespaces' accounts.
	}
	return argv
}

func (c *Cluster) controllers(approve bool) service {
	return service{"cert-manager", []string{"/mnt/bin/certmanager", "controllers", "--kubeconfig=/mnt/pki/cert-manager.kubeconfig",
		fmt.Sprintf("--approve=%v", approve), "--dns01-nameservers=" + nameserver}}
}

// Approve says whether cert-manager's controllers approve every request from now on.
func (c *Cluster) Approve(ctx context.Context, approve bool) error {
	if err := c.ControlPlane.Stop(ctx, "cert-manager"); err != nil {
		return err
	}
	if err := c.ControlPlane.install(c.controllers(approve)); err != nil {
		return err
	}
	return c.ControlPlane.Start(ctx, "cert-manager")
}

// startControlPlane starts the machine and installs cert-manager's resources.
func (c *Cluster) startControlPlane(ctx context.Context, door *os.File) error {
	c.tell("starting the control plane")
	if err := c.ControlPlane.start(connectControlPlane, door); err != nil {
		return err
	}
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.WaitAPI(ctx); err != nil {
		return err
	}
	crds, err := c.Versions.certManagerCRDs(ctx)
	if err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "apply", "--server-side", "-f", crds); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "wait", "--for=condition=Established", "-f", crds, "--timeout=1m"); err != nil {
		return err
	}
	if len(c.Nodes) == 0 {
		return nil
	}
	ca, err := os.ReadFile(c.pki.crt("ca"))
	if err != nil {
		return err
	}
	if err := c.write("certmanager.yaml", "certmanager.yaml", map[string]string{"CA": base64.StdEncoding.EncodeToString(ca)}); err != nil {
		return err
	}
	if _, err := c.Kubectl(ctx, "apply", "-f", filepath.Join(c.Dir, "certmanager.yaml")); err != nil {
		return err
	}
	return eventually(ctx, "cert-manager's webhook", func(ctx context.Context) error {
		_, err := c.CertManager.CertmanagerV1().Issuers(metav1.NamespaceDefault).Create(ctx, &cmapi.Issuer{
			ObjectMeta: metav1.ObjectMeta{Name: "probe"}, Spec: cmapi.IssuerSpec{IssuerConfig: cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		return err
	})
}

// StartAPI starts the API server after it was stopped, and waits until it is ready.
func (c *Cluster) StartAPI(ctx context.Context) error {
	if err := c.ControlPlane.Start(ctx, "kube-apiserver"); err != nil {
		return err
	}
	return c.WaitAPI(ctx)
}

// WaitAPI waits until the API server is ready.
func (c *Cluster) WaitAPI(ctx context.Context) error {
	return eventually(ctx, "the API server", func(ctx context.Context) error {
		return c.Client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// certManagerCRDs is the directory of cert-manager's resource definitions, in its module.
func (v Versions) certManagerCRDs(ctx context.Context) (string, error) {
	modfile, err := v.certManager()
	if err != nil {
		return "", err
	}
	dir, err := binary{modfile: modfile}.find(ctx, "github.com/cert-manager/cert-manager")
	return filepath.Join(dir, "deploy", "crds"), err
}
