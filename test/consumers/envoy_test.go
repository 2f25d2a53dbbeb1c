package consumers

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	"github.com/mayfly-csi/mayfly/test/example"
)

// envoy reads the example's configuration with Envoy's own types, for Envoy is not in Debian: every message is valid, every file that is named is
// in the volume, and a renewal moves a link in the directory that is watched.
func envoy(t *testing.T, e example.Example) {
	n, pod := example.NewNode(t), e.Pods[0]
	var volume string
	for _, v := range pod.Spec.Volumes {
		if v.CSI != nil {
			volume = n.Publish(t, pod, v)
		}
	}
	bootstrap := &bootstrapv3.Bootstrap{}
	decode(t, e.ConfigMaps["envoy"]["envoy.yaml"], bootstrap)
	found := 0
	walk(t, bootstrap, func(m proto.Message) {
		config, ok := m.(*tlsv3.SdsSecretConfig)
		if !ok {
			return
		}
		found++
		file, ok := strings.CutPrefix(config.GetSdsConfig().GetPathConfigSource().GetPath(), "/config/")
		if !ok {
			t.Fatalf("%s is not in the ConfigMap", config.GetName())
		}
		answer := &discoveryv3.DiscoveryResponse{}
		decode(t, e.ConfigMaps["envoy"][file], answer)
		secret := &tlsv3.Secret{}
		if err := answer.GetResources()[0].UnmarshalTo(secret); err != nil {
			t.Fatal(err)
		}
		walk(t, answer, func(proto.Message) {})
		if secret.GetName() != config.GetName() {
			t.Errorf("%s has the secret %s, not %s", file, secret.GetName(), config.GetName())
		}
		checkSecret(t, n, volume, secret)
	})
	if found != 2 {
		t.Errorf("%d secrets", found)
	}
}

// checkSecret demands that the files verify, before and after a renewal, which Envoy is told of by the directory that it watches.
func checkSecret(t *testing.T, n *example.Node, volume string, secret *tlsv3.Secret) {
	t.Helper()
	watched := secret.GetTlsCertificate().GetWatchedDirectory()
	if secret.GetTlsCertificate() == nil {
		watched = secret.GetValidationContext().GetWatchedDirectory()
	}
	if watched.GetPath() != "/tls" {
		t.Errorf("%q is watched", watched.GetPath())
	}
	checkFiles(t, n, volume, secret)
	example.Moved(t, volume)
	checkFiles(t, n, volume, secret)
}

func checkFiles(t *testing.T, n *example.Node, volume string, secret *tlsv3.Secret) {
	t.Helper()
	text := func(source *corev3.DataSource) []byte {
		name, ok := strings.CutPrefix(source.GetFilename(), "/tls/")
		if !ok {
			t.Fatalf("%s is not in the volume", source.GetFilename())
		}
		content, err := os.ReadFile(filepath.Join(volume, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	c := secret.GetTlsCertificate()
	if c == nil {
		if !x509.NewCertPool().AppendCertsFromPEM(text(secret.GetValidationContext().GetTrustedCa())) {
			t.Error("the roots are no certificates")
		}
		return
	}
	pair, err := tls.X509KeyPair(text(c.GetCertificateChain()), text(c.GetPrivateKey()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: n.Roots(t), DNSName: "envoy.default.svc"}); err != nil {
		t.Error(err)
	}
}

func decode(t *testing.T, text string, m proto.Message) {
	t.Helper()
	json, err := yaml.YAMLToJSONStrict([]byte(text))
	if err == nil {
		err = protojson.Unmarshal(json, m)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// walk validates a message, and calls f with it and each below it, those in an Any included.
func walk(t *testing.T, m proto.Message, f func(proto.Message)) {
	t.Helper()
	if v, ok := m.(interface{ ValidateAll() error }); ok {
		if err := v.ValidateAll(); err != nil {
			t.Errorf("%s: %v", m.ProtoReflect().Descriptor().FullName(), err)
		}
	}
	f(m)
	if a, ok := m.(*anypb.Any); ok {
		inner, err := a.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		walk(t, inner, f)
		return
	}
	m.ProtoReflect().Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.Message() == nil || field.IsMap():
		case field.IsList():
			for i := range value.List().Len() {
				walk(t, value.List().Get(i).Message().Interface(), f)
			}
		default:
			walk(t, value.Message().Interface(), f)
		}
		return true
	})
}
