// Package consumers has real programs read the files of a volume: the keystores of Java, OpenSSL, and servers that are told of a renewal as their
// documentation says. The node plugin is the real binary, with the embedded CA.
package consumers

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mayfly-csi/mayfly/test/kubelet"
)

// A node is a kubelet's root with the node plugin on it.
type node struct {
	*kubelet.Kubelet
	t      *testing.T
	driver kubelet.Driver
}

func newNode(t *testing.T) *node {
	t.Helper()
	root, err := os.MkdirTemp("", "node-") // The test's own name would make a socket's path too long.
	if err != nil {
		t.Fatal(err)
	}
	k, err := kubelet.New(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	start(t, nil, "../../bin/mayfly", "node", "--node-name=a", "--signer=local", "--kubelet-root="+root, "--log-format=text")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := k.Register(ctx, "csi.mayfly.dev")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return &node{Kubelet: k, t: t, driver: d}
}

// publish publishes a volume and shows it in a directory that every user can enter, as a container does.
func (n *node) publish(attributes map[string]string) string {
	n.t.Helper()
	v := kubelet.Volume{
		Pod:        kubelet.Pod{Namespace: "shop", Name: "web", UID: "3b2f6a5e-0001-4c5e-9d3e-000000000001", ServiceAccount: "web"},
		Attributes: map[string]string{"csi.mayfly.dev/dns-names": "localhost"},
	}
	for key, value := range attributes {
		v.Attributes["csi.mayfly.dev/"+key] = value
	}
	target, err := n.Publish(n.t.Context(), n.driver, v)
	if err != nil {
		n.t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "container-")
	if err != nil {
		n.t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := unix.Mount(target, dir, "", unix.MS_BIND, ""); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			n.t.Error(err)
		}
		_ = os.Remove(dir)
		if err := n.Unpublish(context.Background(), n.driver, v); err != nil {
			n.t.Error(err)
		}
	})
	return dir
}

// start starts a program, as a user if one is named, and ends it with the test. Its output is shown if the test fails.
func start(t *testing.T, as *syscall.Credential, argv ...string) *os.Process {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		_ = cmd.Wait() // What it says of a signal does not matter.
		if t.Failed() {
			t.Logf("%s:\n%s", argv[0], &out)
		}
	})
	return cmd.Process
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

// port is one that was free a moment ago.
func port(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // It was only asked for its port.
	return l.Addr().(*net.TCPAddr).Port
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// served is the certificate that a server shows now, checked against the CA in the volume. Before is what is said on the connection first.
func served(volume string, port int, before func(net.Conn) error) (*x509.Certificate, error) {
	ca, err := os.ReadFile(filepath.Join(volume, "ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // Nothing more is said.
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if before != nil {
		if err := before(conn); err != nil {
			return nil, err
		}
	}
	client := tls.Client(conn, &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12})
	if err := client.Handshake(); err != nil {
		return nil, err
	}
	return client.ConnectionState().PeerCertificates[0], nil
}

// rotates demands that a server serves the volume's certificate, and the next one after it was told to reload.
func rotates(t *testing.T, volume string, port int, before func(net.Conn) error, reload func() error) {
	t.Helper()
	var first *x509.Certificate
	until(t, "the server to serve", func() (err error) {
		first, err = served(volume, port, before)
		return err
	})
	tlsCrt := filepath.Join(volume, "tls.crt")
	old, err := os.ReadFile(tlsCrt)
	if err != nil {
		t.Fatal(err)
	}
	until(t, "the renewal", func() error {
		now, err := os.ReadFile(tlsCrt)
		if err == nil && bytes.Equal(now, old) {
			err = fmt.Errorf("the certificate is as it was")
		}
		return err
	})
	if err := reload(); err != nil {
		t.Fatal(err)
	}
	until(t, "the server to serve the next certificate", func() error {
		next, err := served(volume, port, before)
		if err == nil && next.Equal(first) {
			err = fmt.Errorf("it serves the one before")
		}
		return err
	})
}

func until(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited for %s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}
