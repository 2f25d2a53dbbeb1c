package docs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	corev1 "k8s.io/api/core/v1"

	"github.com/mayfly-csi/mayfly/driver/issue"
	"github.com/mayfly-csi/mayfly/driver/service"
	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/controller/policy"
	"github.com/mayfly-csi/mayfly/signer/controller/policy/v1alpha1"
	"github.com/mayfly-csi/mayfly/signer/decide"
	"github.com/mayfly-csi/mayfly/signer/message"
	"github.com/mayfly-csi/mayfly/signer/spec"
)

// A bound is a row of the table of bounds. Its error is that of one more than the bound; at the bound there is none.
type bound struct {
	what, most string
	at         func(t *testing.T, over int) error
}

const (
	kib = 1 << 10
	// longName is a pod's, which is longer than the variable that stands for it.
	longName = "web-with-a-longer-name-0"
)

// asking is what a volume asks for that is in order, with an edit.
func asking(edit func(a *volume.Asked)) error {
	a := volume.Asked{ID: "csi-1", Target: "/t"}
	a.Asked = spec.AskedBy(signer.Pod{Namespace: "shop", Name: longName, UID: "7d4f", ServiceAccount: "web"}, spec.Driver,
		map[string]string{spec.Prefix + "issuer-name": "ca", spec.Prefix + "dns-names": "web"})
	edit(&a)
	_, err := volume.Parse(a, volume.Defaults{})
	return err
}

// attribute asks for a value of an attribute.
func attribute(name, value string) error {
	return asking(func(a *volume.Asked) { a.Attributes[spec.Prefix+name] = value })
}

// padded is a text with spaces behind it that has n bytes.
func padded(text string, n int) string { return text + strings.Repeat(" ", n-len(text)) }

// stretched is a list of n bytes that has a text twice, with spaces between.
func stretched(text string, n int) string { return padded(text+",", n-len(text)) + text }

func list(n int, format string) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf(format, i))
	}
	return strings.Join(all, ",")
}

func attributeBounds() []bound {
	return []bound{
		{"Attributes of a volume", "256", func(_ *testing.T, over int) error {
			return asking(func(a *volume.Asked) {
				for i := range 254 + over {
					a.Attributes[fmt.Sprintf("example.org/a%d", i)] = ""
				}
			})
		}},
		{"All attributes of a volume, with those of the kubelet", "256 KiB", func(_ *testing.T, over int) error {
			return asking(func(a *volume.Asked) {
				a.Attributes["example.org/a"] = ""
				left := 256*kib + over
				for key, value := range a.Attributes {
					left -= len(key) + len(value)
				}
				a.Attributes["example.org/a"] = strings.Repeat("a", left)
			})
		}},
		{"An attribute", "64 KiB", func(_ *testing.T, over int) error {
			return attribute("dns-names", stretched("web", 64*kib+over))
		}},
		{"An attribute, once its variables are replaced", "64 KiB", func(_ *testing.T, over int) error {
			return attribute("dns-names", padded("${POD_NAME},", 64*kib+over-len(longName)-len("web")+len("${POD_NAME}"))+"web")
		}},
		{"Variables of an attribute", "1,000", func(_ *testing.T, over int) error {
			return attribute("dns-names", strings.Repeat("${POD_NAME},", 1000+over))
		}},
		{"Elements of a list", "1,000", func(_ *testing.T, over int) error {
			return attribute("dns-names", list(1000+over, "a%d"))
		}},
		{"Sources of `trust`", "16", func(_ *testing.T, over int) error {
			return attribute("trust", list(16+over, "cluster-trust-bundle:a%d"))
		}},
		{"A source of `trust`", "1 KiB", func(_ *testing.T, over int) error {
			source := "cluster-trust-bundle:example.org/ca?"
			for i := range 14 {
				source += fmt.Sprintf("k%02d=%s&", i, strings.Repeat("v", 60))
			}
			rest := kib + over - len(source)
			return attribute("trust", source+"l1="+strings.Repeat("v", 50)+"&l2="+strings.Repeat("v", rest-57))
		}},
		{"A keystore's password", "1 KiB", func(_ *testing.T, over int) error {
			return asking(func(a *volume.Asked) { a.Password = strings.Repeat("a", kib+over) })
		}},
		{"The alias of a key in keystores", "64 bytes", func(_ *testing.T, over int) error {
			return asking(func(a *volume.Asked) {
				a.Attributes[spec.Prefix+"layout"] = "pkcs12"
				a.Attributes[spec.Prefix+"keystore-alias"] = strings.Repeat("a", 64+over)
			})
		}},
		{"A file's name", "255 bytes", func(_ *testing.T, over int) error {
			return attribute("ca-file", strings.Repeat("a", 255+over))
		}},
		{"An RSA key", "8,192 bits", func(_ *testing.T, over int) error {
			return asking(func(a *volume.Asked) {
				a.Attributes[spec.Prefix+"key-algorithm"] = "RSA"
				a.Attributes[spec.Prefix+"key-size"] = fmt.Sprint(8192 + over)
			})
		}},
	}
}

func callBounds() []bound {
	return []bound{
		{"The names and the UID of a pod, as the kubelet says", "253 bytes", func(_ *testing.T, over int) error {
			return asking(func(a *volume.Asked) { a.Attributes["csi.storage.k8s.io/pod.name"] = strings.Repeat("a", 253+over) })
		}},
		{"Mount flags", "16", func(_ *testing.T, over int) error {
			return asking(func(a *volume.Asked) { a.MountFlags = slices.Repeat([]string{"context=a"}, 16+over) })
		}},
		{"A mount flag", "4 KiB", func(_ *testing.T, over int) error {
			return asking(func(a *volume.Asked) {
				a.MountFlags = []string{"context=" + strings.Repeat("a", 4*kib+over-len("context="))}
			})
		}},
		{"A volume's id", "128 bytes", func(_ *testing.T, over int) error { return store.CheckID(strings.Repeat("a", 128+over)) }},
		{"A target's path", "4,095 bytes", func(t *testing.T, over int) error {
			_, err := publish(t, func(req *csi.NodePublishVolumeRequest) {
				req.TargetPath = strings.Repeat("/a", 2046) + "/a" + strings.Repeat("a", 1+over)
			})
			return err
		}},
		{"The tokens of a call", "64 KiB", func(t *testing.T, over int) error {
			log, _ := publish(t, func(req *csi.NodePublishVolumeRequest) {
				const begin, end = `{"":{"token":"`, `"}}`
				token := strings.Repeat("a", 64*kib+over-len(begin+end))
				req.VolumeContext = map[string]string{spec.Tokens: begin + token + end}
			})
			if _, text, found := strings.Cut(log, "error="); found {
				return errors.New(strings.Trim(strings.TrimSpace(text), `"`))
			}
			return nil
		}},
	}
}

// published is a publisher that publishes nothing.
type published struct{ service.Publisher }

func (published) Publish(context.Context, volume.Asked, issue.Token) error { return nil }

// publish makes a call for a volume that is in order, with an edit, and returns what the service logs and answers.
func publish(t *testing.T, edit func(*csi.NodePublishVolumeRequest)) (string, error) {
	t.Helper()
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	volumes, err := store.New(t.TempDir(), time.Now, logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := service.Plugin{
		Publisher: published{}, Volumes: volumes, Metrics: service.NewMetrics(nil), Log: logger,
	}.NewServer()
	listener := bufconn.Listen(kib)
	go server.Serve(listener) //nolint:errcheck // It ends with the test.
	defer server.Stop()
	connection, err := grpc.NewClient("passthrough:", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	req := &csi.NodePublishVolumeRequest{
		VolumeId: "csi-1", TargetPath: "/t/absent", Readonly: true,
		VolumeCapability: &csi.VolumeCapability{AccessType: &csi.VolumeCapability_Mount{}},
	}
	edit(req)
	_, err = csi.NewNodeClient(connection).NodePublishVolume(t.Context(), req)
	if err != nil {
		err = errors.New(status.Convert(err).Message())
	}
	server.Stop()
	return log.String(), err
}

func profileBounds() []bound {
	parse := func(text string) error {
		_, err := volume.ParseProfiles(map[string]string{spec.ProfilesKey: text})
		return err
	}
	return []bound{
		{"The profiles", "512 KiB", func(_ *testing.T, over int) error {
			return parse(padded("profiles: {a: {duration: 1h}}", 512*kib+over))
		}},
		{"Profiles", "1,000", func(_ *testing.T, over int) error {
			return parse("profiles: {" + list(1000+over, "p%d: {duration: 1h}") + "}")
		}},
		{"A profile", "256 KiB", func(_ *testing.T, over int) error {
			values := map[string]string{"dns-names": "web", "uri-sans": "a://b", "ip-sans": "::1", "key-usages": "client auth", "layout": "pem"}
			left, text := 256*kib+over, "profiles: {a: {"
			for name := range values {
				left -= len(name)
			}
			for name, value := range values {
				n := min(left, 60*kib)
				left -= n
				text += name + `: "` + stretched(value, n) + `", `
			}
			return parse(text + "}}")
		}},
	}
}

func requestBounds() []bound {
	return []bound{
		{"A signing request, for mayfly-controller", "4 KiB more than the names", func(t *testing.T, over int) error {
			v := spec.Spec{Names: spec.Names{DNSNames: []string{"web"}}}
			wanted, err := decide.Derive(v)
			if err != nil {
				t.Fatal(err)
			}
			problems := decide.CSR(make([]byte, len(wanted.Raw)+decide.KeySize+over), v)
			if strings.HasPrefix(problems.Error(), "the signing request is not understood: ") {
				return nil // It was parsed.
			}
			return problems
		}},
		{"Volumes of a pod that ask for certificates, for mayfly-controller", "128", func(_ *testing.T, over int) error {
			pod := &corev1.Pod{}
			pod.Name, pod.UID, pod.Spec.NodeName = "web-0", "7d4f", "node-a"
			for i := range decide.MaxVolumes + over {
				source := corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: spec.Driver}}
				pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: fmt.Sprint(i), VolumeSource: source})
			}
			rules := decide.Rules{Drivers: []spec.DriverName{{Name: spec.Driver}}}
			of := decide.Request{Pod: pod.Name, UID: pod.UID, Node: pod.Spec.NodeName, Volume: "another"}
			d := decide.Decide(of, pod, nil, rules, time.Now())
			if strings.Contains(d.Message, "no volume of csi.mayfly.dev with the id") {
				return nil
			}
			return errors.New(d.Message)
		}},
		{"Expressions of a CertificatePolicy", "10", func(t *testing.T, over int) error {
			compiler, err := policy.NewCompiler(policy.Policy{ClusterDomain: "cluster.local"})
			if err != nil {
				t.Fatal(err)
			}
			p := v1alpha1.CertificatePolicy{Spec: v1alpha1.Spec{Namespaces: []string{"*"}}}
			p.Spec.Expressions = slices.Repeat([]v1alpha1.Expression{{Expression: "true"}}, 10+over)
			return compiler.Compile(p).Err
		}},
		{"RSA keys that a node makes at once", "2", func(_ *testing.T, over int) error {
			if over == 0 {
				return nil
			}
			return issue.ErrNoKey
		}},
	}
}

// TestBounds asks the code for the error of one more than each bound, and for none at the bound.
func TestBounds(t *testing.T) {
	var want []string
	for _, b := range slices.Concat(attributeBounds(), callBounds(), profileBounds(), certificateBounds(), requestBounds()) {
		if err := b.at(t, 0); err != nil {
			t.Errorf("%s, %s: %.300v", b.what, b.most, err)
		}
		err := b.at(t, 1)
		if err == nil {
			t.Errorf("%s: more than %s are taken", b.what, b.most)
			continue
		}
		want = append(want, fmt.Sprintf("| %s | %s | `%s` |", b.what, b.most, err))
	}
	got := slices.DeleteFunc(strings.Split(section(t, "Bounds"), "\n"), func(line string) bool {
		return !strings.HasPrefix(line, "| ") || !strings.HasSuffix(line, "` |")
	})
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("reference.md, Bounds, has\n%s\nand the code says\n%s", g, w)
	}
	for _, n := range []int{message.LongestReason, message.Longest} {
		if text := fmt.Sprintf("%d bytes", n); !strings.Contains(strings.ReplaceAll(section(t, "Bounds"), ",", ""), text) {
			t.Errorf("reference.md, Bounds, lacks %s", text)
		}
	}
}
