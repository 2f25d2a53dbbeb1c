package volume

import (
	"testing"

	"github.com/mayfly-csi/mayfly/signer"
)

func TestTheKubeletsKeysOverwriteThePods(t *testing.T) {
	pod := signer.Pod{Namespace: "shop", Name: "web", UID: "1", ServiceAccount: "clerk"}
	attributes := map[string]string{
		Prefix + "issuer-name": "ca", Prefix + "spiffe": "true", Tokens: "{}",
		podName: "admin", podNamespace: "kube-system", podUID: "2", serviceAccountName: "admin", ephemeral: "false",
	}
	asked := AskedBy(pod, "csi.mayfly.dev", attributes)
	if _, there := asked.Attributes[Tokens]; there || attributes[podName] != "admin" {
		t.Errorf("%v from %v", asked.Attributes, attributes)
	}
	defaults := Defaults{TrustDomain: "example.org", SPIFFEPath: "/${POD_NAMESPACE}/${SERVICE_ACCOUNT_NAME}/${POD_IP}"}
	asked.IPs = []string{"10.0.0.1"}
	v, err := Parse(asked, defaults)
	if err != nil || v.Pod != pod || len(v.URIs) != 1 {
		t.Fatalf("%+v (%v)", v, err)
	}
	id, err := defaults.SPIFFEID(pod, asked.IPs)
	if err != nil || *id != *v.URIs[0] || id.String() != "spiffe://example.org/shop/clerk/10.0.0.1" {
		t.Errorf("%s, and the volume has %s (%v)", id, v.URIs[0], err)
	}
}

func TestThereMayBeNoSPIFFEID(t *testing.T) {
	pod := signer.Pod{Namespace: "shop", Name: "web", UID: "1", ServiceAccount: "clerk"}
	if id, err := (Defaults{}).SPIFFEID(pod, nil); id != nil || err != nil {
		t.Errorf("%v (%v)", id, err)
	}
	if id, err := (Defaults{TrustDomain: "example.org", SPIFFEPath: "/${POD}"}).SPIFFEID(pod, nil); id != nil || err == nil {
		t.Errorf("%v (%v)", id, err)
	}
}
