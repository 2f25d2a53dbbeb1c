package cluster

import (
	"cmp"
	"fmt"
	"os"

	utilversion "k8s.io/apimachinery/pkg/util/version"
)

// Versions are those of what runs beside Mayfly, as major and minor: "1.35". Empty ones are those that this repository works with.
type Versions struct {
	Kubernetes  string
	CertManager string
	Containerd  string // Empty: Debian's, with Debian's runc; "2": built, with the runc that goes with it.
}

// VersionsOf reads the environment: MAYFLY_KUBERNETES, MAYFLY_CERT_MANAGER and MAYFLY_CONTAINERD.
func VersionsOf() Versions {
	return Versions{os.Getenv("MAYFLY_KUBERNETES"), os.Getenv("MAYFLY_CERT_MANAGER"), os.Getenv("MAYFLY_CONTAINERD")}
}

// Kubernetes is the version of the control plane and the nodes, unless they are of another.
const Kubernetes = "v1.37.2"

// A release is a version of Kubernetes, and the module below that of the binaries of which it is built.
type release struct{ version, module string }

func usual() release { return release{version: Kubernetes} }

func (v Versions) kubernetes() (release, error) {
	switch v.Kubernetes {
	case "", "1.37":
		return usual(), nil
	case "1.35":
		return release{"v1.35.4", "kubernetes1.35"}, nil
	}
	return release{}, fmt.Errorf("nothing says how Kubernetes %s is built: there are 1.35 and 1.37", v.Kubernetes)
}

// command is one of the release, which says its version: clients parse it.
func (r release) command(name string) binary {
	const in = "k8s.io/component-base/version"
	minor := utilversion.MustParseGeneric(r.version).Minor()
	flags := fmt.Sprintf("-s -w -X %[1]s.gitVersion=%[2]s -X %[1]s.gitMajor=1 -X %[1]s.gitMinor=%[3]d", in, r.version, minor)
	return binary{name: name, pkg: "k8s.io/kubernetes/cmd/" + name, ldflags: flags, module: r.module}
}

// certManager is the go.mod of which cert-manager is built; empty: the one of the binaries' module.
func (v Versions) certManager() (modfile string, err error) {
	switch v.CertManager {
	case "", "1.21":
		return "", nil
	case "1.20":
		return "certmanager-1.20.mod", nil
	}
	return "", fmt.Errorf("nothing says how cert-manager %s is built: there are 1.20 and 1.21", v.CertManager)
}

// containerd is what a node's container runtime is built of; nothing for Debian's.
func (v Versions) containerd() ([]binary, error) {
	const module, of = "containerd2", "github.com/containerd/containerd/v2/cmd/"
	switch v.Containerd {
	case "":
		return nil, nil
	case "2":
		var all []binary
		for _, name := range []string{"containerd", "containerd-shim-runc-v2", "ctr"} {
			all = append(all, binary{name: name, pkg: of + name, ldflags: "-s -w", module: module})
		}
		return append(all, binary{name: "runc", pkg: "github.com/opencontainers/runc", ldflags: "-s -w", module: module, tags: "seccomp"}), nil
	}
	return nil, fmt.Errorf("nothing says how containerd %s is built: there is 2", v.Containerd)
}

// HasUserNamespaces says whether the nodes run pods that have user namespaces of their own.
func (v Versions) HasUserNamespaces() bool { return v.Containerd == "2" }

// HasKubernetes says whether Kubernetes is of that version, such as "1.36", or of a later one.
func (v Versions) HasKubernetes(least string) bool {
	is, err := v.kubernetes()
	return err == nil && utilversion.MustParseGeneric(is.version).AtLeast(utilversion.MustParseGeneric(least))
}

// String names the versions.
func (v Versions) String() string {
	return fmt.Sprintf("Kubernetes %s, cert-manager %s and containerd %s",
		cmp.Or(v.Kubernetes, "1.37"), cmp.Or(v.CertManager, "1.21"), cmp.Or(v.Containerd, "1.6"))
}
