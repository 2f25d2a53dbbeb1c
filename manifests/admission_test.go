package manifests_test

import (
	"slices"
	"strings"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/mayfly-csi/mayfly/signer"
)

// An attempt is a call, and what the policies say of it: nothing if they admit it.
type attempt struct {
	name string
	call call
	want string
}

// TestAdmission is what the policies admit and deny. Each validation of each policy is the only one against some
// attempt.
func TestAdmission(t *testing.T) {
	all := compiled(t)
	missed := map[string]bool{}
	for _, p := range all {
		for _, v := range p.Spec.Validations {
			missed[p.Name+": "+v.Message] = v.MessageExpression == "" // Of one with an expression the words differ.
		}
	}
	for _, a := range slices.Concat(creations(), metadata(), changes(), statuses(), deletions(), events(), ofNodes(), taints(), bundles()) {
		got := a.call.denials(t, all)
		if strings.Join(got, "; ") != a.want {
			t.Errorf("%s: %q, want %q", a.name, got, a.want)
		}
		delete(missed, a.want)
	}
	for message, missing := range missed {
		if missing {
			t.Errorf("no attempt is denied by %s", message)
		}
	}
}

// creations are requests that are made.
func creations() []attempt {
	const (
		of     = "mayfly-requests: "
		noNode = of + "the token of Mayfly's node plugin does not say on which node it runs"
		noWho  = of + "the request does not say who asks, as cert-manager's webhook records it"
		owners = of + "a request of Mayfly's node plugin must be owned by one pod and nothing else"
		blocks = of + "a request of Mayfly's node plugin has no finalizers, and does not keep its owner from being deleted"
	)
	nowhere := &user.DefaultInfo{Name: plugin().Name}
	forAnother := create(plugin())
	forAnother.object = request(on("node-b", plugin().Name))
	saysFalse := func(o *metav1.OwnerReference) { o.Controller, o.BlockOwnerDeletion = new(false), new(false) }
	return []attempt{
		{"a node plugin asks", create(plugin()), ""},
		{"by a token without a node", create(nowhere), noNode},
		{"another node is written down", forAnother, noWho},
		{"no owner", create(plugin(), withoutOwner), owners},
		{"a finalizer", create(plugin(), withFinalizer), blocks},
		{"it blocks its owner", create(plugin(), owned(noOwnDeletion)), blocks},
		{"it is controlled by its owner", create(plugin(), owned(ownerAsControl)), blocks},
		{"it says false", create(plugin(), owned(saysFalse)), ""},
		{"another's finalizer", create(editor(), withFinalizer), ""},
	}
}

// metadata are requests with labels and annotations.
func metadata() (all []attempt) {
	const (
		selfSigned = cmapi.CertificateRequestPrivateKeyAnnotationKey
		venafi     = cmapi.VenafiCustomFieldsAnnotationKey
	)
	for key, change := range map[string]func(string) changeRequest{
		"spiffe.csi.cert-manager.io/identity":  annotated, // csi-driver-spiffe's.
		"example.org/team":                     annotated, // Of the author's group.
		"policies.kyverno.io/last-applied":     annotated, // Of a mutating webhook.
		"app.kubernetes.io/managed-by":         labelled,
		"use-solver":                           labelled,
		"notcert-manager.io/x":                 annotated,
		"pki.example.org/of-an-issuer-unasked": annotated,
	} {
		all = append(all, attempt{key, create(plugin(), change(key)), ""})
	}
	for key, changes := range map[string][]changeRequest{
		"csi.mayfly.dev/other":    {annotated("csi.mayfly.dev/other")},
		signer.VolumeAnnotation:   {labelled(signer.VolumeAnnotation)},
		selfSigned:                {annotated(selfSigned)},
		venafi:                    {annotated(venafi)},
		"venafi.example.org/zone": {annotated("venafi.example.org/zone")},
		"acme.cert-manager.io/http01-override-ingress-name": {annotated("acme.cert-manager.io/http01-override-ingress-name")},
		"acme.cert-manager.io/http01-solver":                {labelled("acme.cert-manager.io/http01-solver")},
		"pki.example.org/profile":                           {anotherIssuer, annotated("pki.example.org/profile")},
		"v2.pki.example.org/profile":                        {anotherIssuer, annotated("v2.pki.example.org/profile")},
		"cert-manager.io/certificate-name":                  {anotherIssuer, annotated("cert-manager.io/certificate-name")},
	} {
		all = append(all, attempt{key, create(plugin(), changes...), "mayfly-requests: issuers may read '" + key +
			"', which a request of Mayfly's node plugin may not have: an annotation that is to be allowed must be in the policy mayfly-requests"})
	}
	return append(all, attempt{"someone else's annotation", create(editor(), annotated(venafi)), ""})
}

// changes are requests that are changed.
func changes() []attempt {
	const (
		of       = "mayfly-changes: "
		spec     = of + "the spec of a request of Mayfly's node plugin or controller does not change, and no other becomes one"
		metadata = of + "the labels and annotations of an approved request of Mayfly's node plugin or controller are changed by issuers alone"
	)
	byEditor := func(of *user.DefaultInfo, before changeRequest, after ...changeRequest) call {
		return change(editor(), of, []changeRequest{before}, after)
	}
	byIssuer := func(before changeRequest, after ...changeRequest) call {
		c := byEditor(plugin(), before, after...)
		c.writesAnswers = true
		return c
	}
	becomes := func(before, after *user.DefaultInfo) call {
		c := byEditor(before, asItIs)
		c.object = request(after)
		return c
	}
	venafi, solver := annotated(cmapi.VenafiCustomFieldsAnnotationKey), labelled("use-solver")
	return []attempt{
		{"an editor changes the spec", byEditor(plugin(), approved, anotherCSR), spec},
		{"… before it is approved", byEditor(plugin(), asItIs, anotherCSR), spec},
		{"… of the controller's request", byEditor(decider(), approved, anotherCSR), spec},
		{"an issuer changes the spec", byIssuer(approved, anotherCSR), spec},
		{"an editor makes a request the node plugin's", becomes(editor(), plugin()), spec},
		{"an editor makes the node plugin's request another's", becomes(plugin(), editor()), spec},
		{"someone else's request", byEditor(editor(), approved, anotherCSR, venafi, solver), ""},
		{"an editor annotates it", byEditor(plugin(), asItIs, venafi), ""},
		{"… when it is denied", byEditor(plugin(), deniedAndMendable, venafi), ""},
		{"… when it is approved", byEditor(plugin(), approved, venafi), metadata},
		{"an editor labels it when it is approved", byEditor(plugin(), approved, solver), metadata},
		{"an issuer annotates it when it is approved", byIssuer(approved, annotated("venafi.cert-manager.io/pickup-id")), ""},
		{"the garbage collector takes its owner off", byEditor(plugin(), approved, withoutOwner), ""},
	}
}

// statuses are decisions and answers.
func statuses() []attempt {
	const (
		decides = "mayfly-decisions: only mayfly-controller approves or denies the requests of Mayfly's node plugin, and its own"
		answers = "mayfly-decisions: mayfly-controller decides on the requests of Mayfly's node plugin, and its own, and answers none"
	)
	ready, denied := condition(cmapi.CertificateRequestConditionReady), condition(cmapi.CertificateRequestConditionDenied)
	return []attempt{
		{"the controller approves", status(decider(), plugin(), approved), ""},
		{"the controller says what it would approve", status(decider(), plugin(), deniedAndMendable), ""},
		{"the controller approves its own", status(decider(), decider(), approved), ""},
		{"another approves", status(editor(), plugin(), approved), decides},
		{"another approves another's", status(editor(), editor(), approved), ""},
		{"the controller approves another's", status(decider(), editor(), approved), answers},
		{"the controller writes a certificate", status(decider(), plugin(), withCertificate), answers},
		{"the controller writes a CA", status(decider(), plugin(), withCACert), answers},
		{"the controller writes that it is ready", status(decider(), plugin(), ready), answers},
		{"the controller denies what waits", waiting(status(decider(), plugin(), denied), "Pending", "Pending"), ""},
		{"… and says why it waits", waiting(status(decider(), plugin(), denied), "Pending", "Failed"), answers},
		{"an issuer answers", status(editor(), plugin(), withCertificate, withCACert, ready), ""},
	}
}

func deletions() []attempt {
	const (
		deletes = "mayfly-deletions: Mayfly's node plugin may delete the requests of its own node alone"
		its     = "mayfly-deletions: mayfly-controller may delete its own requests alone"
	)
	return []attempt{
		{"a node plugin deletes its request", remove(plugin(), plugin()), ""},
		{"a node plugin deletes another node's", remove(on("node-b", plugin().Name), plugin()), deletes},
		{"the controller deletes its request", remove(decider(), decider()), ""},
		{"the controller deletes another's", remove(decider(), plugin()), its},
		{"an editor deletes a request", remove(editor(), plugin()), ""},
	}
}

func events() []attempt {
	const (
		binds   = "mayfly-events: an event of Mayfly has no finalizers and no owner"
		tells   = "mayfly-events: an event of Mayfly's node plugin is about a pod, and says on which node it runs"
		retells = "mayfly-events: mayfly-controller may change its own events alone"
	)
	nowhere := &user.DefaultInfo{Name: plugin().Name}
	pinned := func(e *eventsv1.Event) { e.Finalizers = []string{"example.org/never"} }
	owned := func(e *eventsv1.Event) { e.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod"}} }
	about := func(kind string) func(*eventsv1.Event) { return func(e *eventsv1.Event) { e.Regarding.Kind = kind } }
	from := func(node string) func(*eventsv1.Event) { return func(e *eventsv1.Event) { e.ReportingInstance = node } }
	return []attempt{
		{"a node plugin tells its pod", tell(plugin(), from("node-a")), ""},
		{"… with a finalizer", tell(plugin(), pinned), binds},
		{"… owned by a pod", tell(plugin(), owned), binds},
		{"… of another kind", tell(plugin(), about("Node")), tells},
		{"… as another node", tell(plugin(), from("node-b")), tells},
		{"… by a token without a node", tell(nowhere, from("")), tells},
		{"the controller tells", tell(decider(), about("Secret")), ""},
		{"the controller tells again", retell(decider(), "mayfly-controller"), ""},
		{"the controller changes another's event", retell(decider(), "kubelet"), retells},
		{"another changes an event", retell(editor(), "kubelet"), ""},
	}
}

// ofNodes are what nodes say of themselves, and ask.
func ofNodes() []attempt {
	const (
		cidrs  = "mayfly-node-ranges: a node may not say where the IPs of its pods lie"
		of     = "mayfly-pod-certificates: "
		only   = of + "only the node that is named in it asks for a certificate of Mayfly"
		blocks = of + "a request for a certificate of Mayfly has no finalizers, is owned by its pod alone, and does not keep it from being deleted"
		gone   = "mayfly-pod-certificate-deletions: mayfly-controller may delete requests of its own signers alone"
	)
	type pcr = certificatesv1.PodCertificateRequest
	asItIs := func(*pcr) {}
	forAnother := func(r *pcr) { r.Spec.NodeName = "node-b" }
	pinned := func(r *pcr) { r.Finalizers = []string{"example.org/never"} }
	owned := func(change func(*metav1.OwnerReference)) func(*pcr) {
		return func(r *pcr) { change(&r.OwnerReferences[0]) }
	}
	ofAnother := func(r *pcr) {
		r.Spec.SignerName = anotherSigner
		forAnother(r)
		pinned(r)
	}
	return []attempt{
		{"a node keeps its ranges", ranges(node(), []string{"10.0.0.0/24"}, []string{"10.0.0.0/24"}), ""},
		{"a node sets its ranges", ranges(node(), []string{"10.0.0.0/8"}, nil), cidrs},
		{"an administrator sets them", ranges(editor(), []string{"10.0.0.0/8"}, nil), ""},

		{"a node asks for itself", podRequest(node(), asItIs), ""},
		{"a node asks for another", podRequest(node(), forAnother), only},
		{"… of another's signer", podRequest(node(), ofAnother), ""},
		{"the name of a node alone", podRequest(&user.DefaultInfo{Name: node().Name}, asItIs), only},
		{"a node's request with a finalizer", podRequest(node(), pinned), blocks},
		{"… that blocks its owner", podRequest(node(), owned(noOwnDeletion)), blocks},
		{"… that its owner controls", podRequest(node(), owned(ownerAsControl)), blocks},
		{"… that another pod owns", podRequest(node(), owned(func(o *metav1.OwnerReference) { o.UID = "2" })), blocks},
		{"… that a Node owns", podRequest(node(), owned(func(o *metav1.OwnerReference) { o.Kind = "Node" })), blocks},
		{"… that nobody owns", podRequest(node(), func(r *pcr) { r.OwnerReferences = nil }), ""},
		{"the controller deletes a request of ours", removePodRequest(decider(), signer.PodCertificateSigner), ""},
		{"the controller deletes another signer's", removePodRequest(decider(), anotherSigner), gone},
		{"another deletes another signer's", removePodRequest(editor(), anotherSigner), ""},
	}
}

// taints are what the controller changes of nodes.
func taints() (all []attempt) {
	const only = "mayfly-startup-taint: mayfly-controller takes the taint csi.mayfly.dev/not-ready off a node, and changes nothing else of it"
	remove := func(n *corev1.Node) { n.Spec.Taints = n.Spec.Taints[1:] }
	for name, change := range map[string]func(*corev1.Node){
		"it stays":         func(*corev1.Node) {},
		"another goes too": func(n *corev1.Node) { n.Spec.Taints = nil },
		"another goes":     func(n *corev1.Node) { n.Spec.Taints = n.Spec.Taints[:1] },
		"another changes":  func(n *corev1.Node) { remove(n); n.Spec.Taints[0].Effect = corev1.TaintEffectNoSchedule },
		"one comes":        func(n *corev1.Node) { remove(n); n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "x"}) },
		"a cordon":         func(n *corev1.Node) { remove(n); n.Spec.Unschedulable = true },
		"its range":        func(n *corev1.Node) { remove(n); n.Spec.PodCIDR = "10.0.0.0/8" },
		"its ranges":       func(n *corev1.Node) { remove(n); n.Spec.PodCIDRs = nil },
		"its machine":      func(n *corev1.Node) { remove(n); n.Spec.ProviderID = "metal://b" },
		"a label":          func(n *corev1.Node) { remove(n); n.Labels = map[string]string{"zone": "b"} },
		"an annotation":    func(n *corev1.Node) { remove(n); n.Annotations = nil },
		"a finalizer":      func(n *corev1.Node) { remove(n); n.Finalizers = []string{"example.org/never"} },
		"an owner":         func(n *corev1.Node) { remove(n); n.OwnerReferences = []metav1.OwnerReference{{Name: "x"}} },
	} {
		all = append(all, attempt{"the controller changes a node: " + name, nodeChange(decider(), change), only})
		all = append(all, attempt{"another changes a node: " + name, nodeChange(editor(), change), ""})
	}
	return append(all, attempt{"the controller takes the start-up taint off", nodeChange(decider(), remove), ""})
}

const anotherSigner = "example.org/signer"

func bundles() []attempt {
	const (
		only   = "mayfly-bundles: mayfly-controller may write the ClusterTrustBundles of its own signers alone"
		pinned = "mayfly-bundles: a ClusterTrustBundle of mayfly-controller has no finalizers"
		ours   = signer.PodCertificateSigner
		corp   = "csi.mayfly.dev/clusterissuer.corp"
	)
	return []attempt{
		{"the controller publishes roots", publish(decider(), bundle(ours), nil), ""},
		{"the controller changes its roots", publish(decider(), bundle(corp), bundle(corp)), ""},
		{"the controller publishes another signer's", publish(decider(), bundle(anotherSigner), nil), only},
		{"the controller publishes nobody's", publish(decider(), bundle(""), nil), only},
		{"the controller changes nobody's", publish(decider(), bundle(""), bundle("")), only},
		{"the controller gives a bundle to another signer", publish(decider(), bundle(anotherSigner), bundle(ours)), only},
		{"the controller takes nobody's", publish(decider(), bundle(ours), bundle("")), only},
		{"the controller pins a bundle", publish(decider(), bundle(ours, "example.org/never"), nil), pinned},
		{"another publishes nobody's", publish(editor(), bundle(""), bundle("")), ""},
	}
}
