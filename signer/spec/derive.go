package spec

import (
	"maps"
	"net/url"

	"github.com/mayfly-csi/mayfly/signer"
)

// AskedBy returns what the kubelet asks for an inline volume of a pod: the attributes that the pod's author gave,
// and the kubelet's own keys, which overwrite them. The controller derives a request from it as the node does.
func AskedBy(pod signer.Pod, driver string, attributes map[string]string) Asked {
	all := map[string]string{}
	maps.Copy(all, attributes)
	maps.Copy(all, map[string]string{
		podName: pod.Name, podNamespace: pod.Namespace, podUID: pod.UID, serviceAccountName: pod.ServiceAccount,
		ephemeral: "true",
	})
	delete(all, Tokens)
	return Asked{Driver: driver, Attributes: all, Node: pod.Node}
}

// SPIFFEID returns the SPIFFE ID that the attribute spiffe gives to a pod; nil where there is no trust domain.
func (d Defaults) SPIFFEID(pod signer.Pod) (*url.URL, error) {
	if d.TrustDomain == "" {
		return nil, nil
	}
	p := placeholderParser(d)
	p.Pod = pod
	id, err := p.spiffeID()
	if err != nil {
		return nil, err
	}
	return id.URL(), nil
}
