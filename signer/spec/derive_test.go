package spec

import (
	"reflect"
	"strings"
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
	defaults := Defaults{TrustDomain: "example.org", SPIFFEPath: "/${POD_NAMESPACE}/${SERVICE_ACCOUNT_NAME}/${POD_UID}"}
	v, err := Parse(asked, defaults)
	if err != nil || v.Pod != pod || len(v.URIs) != 1 {
		t.Fatalf("%+v (%v)", v, err)
	}
	id, err := defaults.SPIFFEID(pod)
	if err != nil || *id != *v.URIs[0] || id.String() != "spiffe://example.org/shop/clerk/1" {
		t.Errorf("%s, and the volume has %s (%v)", id, v.URIs[0], err)
	}
}

// TestTheNode: the node plugin knows it for all pods, and the controller has it of each.
func TestTheNode(t *testing.T) {
	pod := signer.Pod{Namespace: "shop", Name: "web", UID: "1", ServiceAccount: "clerk", Node: "node-a"}
	attributes := map[string]string{Prefix + "issuer-name": "ca", Prefix + "dns-names": "${POD_NAME}.${NODE_NAME}.example.org", Prefix + "spiffe": "true"}
	defaults := Defaults{TrustDomain: "example.org", SPIFFEPath: "/${NODE_NAME}/$POD_NAME"}
	controllers, err := Parse(AskedBy(pod, Driver, attributes), defaults)
	if err != nil || controllers.DNSNames[0] != "web.node-a.example.org" || controllers.URIs[0].String() != "spiffe://example.org/node-a/web" {
		t.Errorf("%v %v (%v)", controllers.DNSNames, controllers.URIs, err)
	}
	if id, err := defaults.SPIFFEID(controllers.Pod); err != nil || id.String() != controllers.URIs[0].String() {
		t.Errorf("%s (%v)", id, err)
	}
	pod.Node = ""
	asked := AskedBy(pod, Driver, attributes)
	const want = "csi.mayfly.dev/dns-names has ${NODE_NAME}, and the pod is on no node yet"
	if _, err := Parse(asked, Defaults{TrustDomain: "example.org"}); err == nil || err.Error() != want {
		t.Errorf("without a node: %v", err)
	}
	defaults.Node = "node-a"
	if nodes, err := Parse(asked, defaults); err != nil || !reflect.DeepEqual(nodes, controllers) {
		t.Errorf("%+v, and the controller has %+v (%v)", nodes, controllers, err)
	}
}

func TestThereMayBeNoSPIFFEID(t *testing.T) {
	pod := signer.Pod{Namespace: "shop", Name: "web", UID: "1", ServiceAccount: "clerk"}
	if id, err := (Defaults{}).SPIFFEID(pod); id != nil || err != nil {
		t.Errorf("%v (%v)", id, err)
	}
	if id, err := (Defaults{TrustDomain: "example.org", SPIFFEPath: "/${POD}"}).SPIFFEID(pod); id != nil || err == nil {
		t.Errorf("%v (%v)", id, err)
	}
}

// No pod can have the SPIFFE ID of one in another namespace, whatever it is called.
func TestASPIFFEPathTellsNamespaces(t *testing.T) {
	for path, want := range map[string]bool{
		"/sa/${SERVICE_ACCOUNT_NAME}": false, "/workload": false, "/${NODE_NAME}/$POD_NAME": false,
		"/${POD_NAMESPACE}${SERVICE_ACCOUNT_NAME}":  false, // a and bc, ab and c.
		"/${POD_NAMESPACE}-${SERVICE_ACCOUNT_NAME}": false, "/${POD_UID}${POD_NAME}": false,
		"/$POD_NAMESPACE/x": true, "/ns-${POD_NAMESPACE}.x/${POD_NAME}${SERVICE_ACCOUNT_NAME}": true, "/x/${POD_UID}": true,
	} {
		err := (Defaults{TrustDomain: "example.org", SPIFFEPath: path}).Check()
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "pods of different namespaces") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// A SPIFFE ID is made of what is proved: the pod's node writes its IP.
func TestASPIFFEPathWithAnIP(t *testing.T) {
	for path, want := range map[string]bool{
		"": true, "/${POD_NAMESPACE}/${NODE_NAME}/${POD_NAME}/${POD_UID}": true, "/${POD_IP}": false, "/x/$POD_IPS": false,
	} {
		if err := (Defaults{TrustDomain: "example.org", SPIFFEPath: path}).Check(); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
}
