package manifests_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/mayfly-csi/mayfly/signer"
)

const nodeKey = "authentication.kubernetes.io/node-name"

// plugin is the node plugin of node-a, decider the controller, editor who may edit the namespace, and node the node itself.
func plugin() *user.DefaultInfo {
	return &user.DefaultInfo{Name: "system:serviceaccount:mayfly-system:mayfly", Extra: map[string][]string{nodeKey: {"node-a"}}}
}

func decider() *user.DefaultInfo {
	return &user.DefaultInfo{Name: "system:serviceaccount:mayfly-system:mayfly-controller", Extra: map[string][]string{nodeKey: {"node-c"}}}
}

func editor() *user.DefaultInfo { return &user.DefaultInfo{Name: "alice"} }

func node() *user.DefaultInfo {
	return &user.DefaultInfo{Name: "system:node:node-a", Groups: []string{"system:nodes"}}
}

// request is a CertificateRequest of a user's, as cert-manager's webhook leaves it.
func request(of *user.DefaultInfo, changes ...func(*cmapi.CertificateRequest)) *cmapi.CertificateRequest {
	cr := &cmapi.CertificateRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: "cert-manager.io/v1", Kind: "CertificateRequest"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "x", Namespace: "shop", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "1"}},
			Annotations: map[string]string{signer.VolumeAnnotation: "csi-1"},
		},
		Spec: cmapi.CertificateRequestSpec{Username: of.Name, Extra: of.Extra, Request: []byte("csr"), IssuerRef: cmmeta.IssuerReference{Name: "ca"}},
	}
	for _, change := range changes {
		change(cr)
	}
	return cr
}

type changeRequest = func(*cmapi.CertificateRequest)

func annotated(key string) changeRequest {
	return func(cr *cmapi.CertificateRequest) { cr.Annotations[key] = "x" }
}

func labelled(key string) changeRequest {
	return func(cr *cmapi.CertificateRequest) { cr.Labels = map[string]string{key: "x"} }
}

func owned(change func(*metav1.OwnerReference)) changeRequest {
	return func(cr *cmapi.CertificateRequest) { change(&cr.OwnerReferences[0]) }
}

func condition(kind cmapi.CertificateRequestConditionType) changeRequest {
	return func(cr *cmapi.CertificateRequest) {
		cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{Type: kind, Status: cmmeta.ConditionTrue})
	}
}

func approved(cr *cmapi.CertificateRequest) { condition(cmapi.CertificateRequestConditionApproved)(cr) }

var (
	requestResource   = cmapi.SchemeGroupVersion.WithResource("certificaterequests")
	podRequests       = certificatesv1.SchemeGroupVersion.WithResource("podcertificaterequests")
	bundleResource    = certificatesv1.SchemeGroupVersion.WithResource("clustertrustbundles")
	eventResource     = eventsv1.SchemeGroupVersion.WithResource("events")
	nodeResource      = corev1.SchemeGroupVersion.WithResource("nodes")
	noOwnDeletion     = func(o *metav1.OwnerReference) { o.BlockOwnerDeletion = new(true) }
	ownerAsControl    = func(o *metav1.OwnerReference) { o.Controller = new(true) }
	withFinalizer     = func(cr *cmapi.CertificateRequest) { cr.Finalizers = []string{"example.org/never"} }
	anotherIssuer     = func(cr *cmapi.CertificateRequest) { cr.Spec.IssuerRef.Group = "pki.example.org" }
	anotherCSR        = func(cr *cmapi.CertificateRequest) { cr.Spec.Request = []byte("another") }
	withCertificate   = func(cr *cmapi.CertificateRequest) { cr.Status.Certificate = []byte("x") }
	withCACert        = func(cr *cmapi.CertificateRequest) { cr.Status.CA = []byte("x") }
	deniedAndMendable = func(cr *cmapi.CertificateRequest) {
		condition(cmapi.CertificateRequestConditionDenied)(cr)
		condition(signer.Approvable)(cr)
	}
)

func create(who *user.DefaultInfo, changes ...changeRequest) call {
	return call{operation: admission.Create, resource: requestResource, object: request(who, changes...), who: who}
}

// change is an update of a request of someone.
func change(who, of *user.DefaultInfo, before, after []changeRequest) call {
	return call{
		operation: admission.Update, resource: requestResource, who: who,
		old: request(of, before...), object: request(of, append(slices.Clone(before), after...)...),
	}
}

func status(who, of *user.DefaultInfo, after ...changeRequest) call {
	c := change(who, of, nil, after)
	c.subresource = "status"
	return c
}

// waiting has a request wait for its issuer, for one reason and then for another.
func waiting(c call, before, after string) call {
	for o, reason := range map[runtime.Object]string{c.old: before, c.object: after} {
		cr, _ := o.(*cmapi.CertificateRequest)
		cr.Status.Conditions = append(cr.Status.Conditions, cmapi.CertificateRequestCondition{
			Type: cmapi.CertificateRequestConditionReady, Status: cmmeta.ConditionFalse, Reason: reason,
		})
	}
	return c
}

func remove(who, of *user.DefaultInfo) call {
	return call{operation: admission.Delete, resource: requestResource, old: request(of), who: who}
}

// podRequest is a PodCertificateRequest of node-a.
func podRequest(who *user.DefaultInfo, change func(*certificatesv1.PodCertificateRequest)) call {
	pcr := &certificatesv1.PodCertificateRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "PodCertificateRequest"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "x", Namespace: "shop", OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "web", UID: "1"}},
		},
		Spec: certificatesv1.PodCertificateRequestSpec{SignerName: signer.PodCertificateSigner, NodeName: "node-a", PodName: "web", PodUID: "1"},
	}
	change(pcr)
	return call{operation: admission.Create, resource: podRequests, object: pcr, who: who}
}

func removePodRequest(who *user.DefaultInfo, signerName string) call {
	made := podRequest(who, func(pcr *certificatesv1.PodCertificateRequest) { pcr.Spec.SignerName = signerName })
	return call{operation: admission.Delete, resource: podRequests, old: made.object, who: who}
}

func bundle(signerName string, finalizers ...string) runtime.Object {
	return &certificatesv1.ClusterTrustBundle{
		TypeMeta:   metav1.TypeMeta{APIVersion: "certificates.k8s.io/v1", Kind: "ClusterTrustBundle"},
		ObjectMeta: metav1.ObjectMeta{Name: "x", Finalizers: finalizers},
		Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signerName},
	}
}

func publish(who *user.DefaultInfo, now, before runtime.Object) call {
	c := call{operation: admission.Create, resource: bundleResource, object: now, who: who}
	if before != nil {
		c.operation, c.old = admission.Update, before
	}
	return c
}

func event(change func(*eventsv1.Event)) *eventsv1.Event {
	e := &eventsv1.Event{
		TypeMeta:   metav1.TypeMeta{APIVersion: "events.k8s.io/v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{Name: "x", Namespace: "shop"}, Regarding: corev1.ObjectReference{Kind: "Pod", Name: "web"},
		ReportingController: "mayfly-controller", ReportingInstance: "node-a",
	}
	change(e)
	return e
}

func tell(who *user.DefaultInfo, change func(*eventsv1.Event)) call {
	return call{operation: admission.Create, resource: eventResource, object: event(change), who: who}
}

func retell(who *user.DefaultInfo, of string) call {
	about := func(e *eventsv1.Event) { e.ReportingController = of }
	return call{operation: admission.Update, resource: eventResource, object: event(about), old: event(about), who: who}
}

func ranges(who *user.DefaultInfo, now, before []string) call {
	of := func(cidrs []string) runtime.Object {
		return &corev1.Node{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}, ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
	}
	return call{operation: admission.Update, resource: nodeResource, object: of(now), old: of(before), who: who}
}

// TestAdmission is what the policies admit and deny. Each validation of each policy is the only one against some row.
func TestAdmission(t *testing.T) {
	const (
		noNode    = "mayfly-requests: the token of Mayfly's node plugin does not say on which node it runs"
		noWho     = "mayfly-requests: the request does not say who asks, as cert-manager's webhook records it"
		owners    = "mayfly-requests: a request of Mayfly's node plugin must be owned by one pod and nothing else"
		blocks    = "mayfly-requests: a request of Mayfly's node plugin has no finalizers, and does not keep its owner from being deleted"
		mayRead   = "mayfly-requests: issuers may read '%s', which a request of Mayfly's node plugin may not have: an annotation that is to be allowed must be in the policy mayfly-requests"
		spec      = "mayfly-changes: the spec of a request of Mayfly's node plugin or controller does not change, and no other becomes one"
		metadata  = "mayfly-changes: the labels and annotations of an approved request of Mayfly's node plugin or controller are changed by issuers alone"
		decides   = "mayfly-decisions: only mayfly-controller approves or denies the requests of Mayfly's node plugin, and its own"
		answers   = "mayfly-decisions: mayfly-controller decides on the requests of Mayfly's node plugin, and its own, and answers none"
		deletes   = "mayfly-deletions: Mayfly's node plugin may delete the requests of its own node alone"
		deletesIt = "mayfly-deletions: mayfly-controller may delete its own requests alone"
		binds     = "mayfly-events: an event of Mayfly has no finalizers and no owner"
		tells     = "mayfly-events: an event of Mayfly's node plugin is about a pod, and says on which node it runs"
		retells   = "mayfly-events: mayfly-controller may change its own events alone"
		cidrs     = "mayfly-node-ranges: a node may not say where the IPs of its pods lie"
		only      = "mayfly-pod-certificates: only the node that is named in it asks for a certificate of Mayfly"
		podBlocks = "mayfly-pod-certificates: a request for a certificate of Mayfly has no finalizers, is owned by its pod alone, and does not keep it from being deleted"
		podGone   = "mayfly-pod-certificate-deletions: mayfly-controller may delete requests of its own signers alone"
		publishes = "mayfly-bundles: mayfly-controller may write the ClusterTrustBundles of its own signers alone"
		pinned    = "mayfly-bundles: a ClusterTrustBundle of mayfly-controller has no finalizers"
	)
	reads := func(key string) string { return fmt.Sprintf(mayRead, key) }
	other := plugin()
	other.Extra = map[string][]string{nodeKey: {"node-b"}}
	nowhere := &user.DefaultInfo{Name: plugin().Name}
	issuer := func(c call) call {
		c.writesAnswers = true
		return c
	}
	isApproved := []changeRequest{approved}
	asWritten := func(*certificatesv1.PodCertificateRequest) {}
	const another, ours, corp = "example.org/signer", "csi.mayfly.dev/volume", "csi.mayfly.dev/clusterissuer.corp"

	rows := []struct {
		name string
		call call
		want string
	}{
		{"a node plugin asks", create(plugin()), ""},
		{"by a token without a node", create(nowhere), noNode},
		{"another node is written down", call{operation: admission.Create, resource: requestResource, object: request(other), who: plugin()}, noWho},
		{"no owner", create(plugin(), func(cr *cmapi.CertificateRequest) { cr.OwnerReferences = nil }), owners},
		{"a finalizer", create(plugin(), withFinalizer), blocks},
		{"it blocks its owner", create(plugin(), owned(noOwnDeletion)), blocks},
		{"it is controlled by its owner", create(plugin(), owned(ownerAsControl)), blocks},
		{"it says false", create(plugin(), owned(func(o *metav1.OwnerReference) { o.Controller, o.BlockOwnerDeletion = new(false), new(false) })), ""},
		{"another's finalizer", create(editor(), withFinalizer), ""},
		{"csi-driver-spiffe's annotation", create(plugin(), annotated("spiffe.csi.cert-manager.io/identity")), ""},
		{"an annotation of the author's group", create(plugin(), annotated("example.org/team")), ""},
		{"an annotation of a mutating webhook", create(plugin(), annotated("policies.kyverno.io/last-applied-patches")), ""},
		{"a label of a mutating webhook", create(plugin(), labelled("app.kubernetes.io/managed-by")), ""},
		{"a label without a group", create(plugin(), labelled("use-solver")), ""},
		{"a group that only ends like one", create(plugin(), annotated("notcert-manager.io/x")), ""},
		{"another annotation of Mayfly", create(plugin(), annotated("csi.mayfly.dev/other")), reads("csi.mayfly.dev/other")},
		{"the volume as a label", create(plugin(), labelled(signer.VolumeAnnotation)), reads(signer.VolumeAnnotation)},
		{"the key for a self-signed certificate", create(plugin(), annotated(cmapi.CertificateRequestPrivateKeyAnnotationKey)), reads("cert-manager.io/private-key-secret-name")},
		{"an ACME solver's override", create(plugin(), annotated("acme.cert-manager.io/http01-override-ingress-name")), reads("acme.cert-manager.io/http01-override-ingress-name")},
		{"an ACME solver's label", create(plugin(), labelled("acme.cert-manager.io/http01-solver")), reads("acme.cert-manager.io/http01-solver")},
		{"Venafi's fields", create(plugin(), annotated(cmapi.VenafiCustomFieldsAnnotationKey)), reads("venafi.cert-manager.io/custom-fields")},
		{"Venafi's fields, of another group", create(plugin(), annotated("venafi.example.org/zone")), reads("venafi.example.org/zone")},
		{"Venafi's own group", create(plugin(), annotated("venafi.com/zone")), reads("venafi.com/zone")},
		{"another issuer's annotation", create(plugin(), annotated("pki.example.org/profile")), ""},
		{"the issuer's annotation", create(plugin(), anotherIssuer, annotated("pki.example.org/profile")), reads("pki.example.org/profile")},
		{"cert-manager's annotation, with another issuer", create(plugin(), anotherIssuer, annotated(cmapi.CertificateRequestPrivateKeyAnnotationKey)), reads("cert-manager.io/private-key-secret-name")},
		{"the issuer's annotation, of a part", create(plugin(), anotherIssuer, annotated("v2.pki.example.org/profile")), reads("v2.pki.example.org/profile")},
		{"someone else's annotations", create(editor(), annotated(cmapi.VenafiCustomFieldsAnnotationKey)), ""},

		{"an editor changes the spec", change(editor(), plugin(), isApproved, []changeRequest{anotherCSR}), spec},
		{"… before it is approved", change(editor(), plugin(), nil, []changeRequest{anotherCSR}), spec},
		{"… of the controller's request", change(editor(), decider(), isApproved, []changeRequest{anotherCSR}), spec},
		{"an issuer changes the spec", issuer(change(editor(), plugin(), isApproved, []changeRequest{anotherCSR})), spec},
		{"an editor makes a request the node plugin's", call{operation: admission.Update, resource: requestResource, who: editor(), old: request(editor()), object: request(plugin())}, spec},
		{"an editor makes the node plugin's request another's", call{operation: admission.Update, resource: requestResource, who: editor(), old: request(plugin()), object: request(editor())}, spec},
		{"someone else's request", change(editor(), editor(), isApproved, []changeRequest{anotherCSR, annotated("x"), labelled("x")}), ""},
		{"an editor annotates it", change(editor(), plugin(), nil, []changeRequest{annotated("x")}), ""},
		{"an editor annotates it when it is denied", change(editor(), plugin(), []changeRequest{deniedAndMendable}, []changeRequest{annotated("x")}), ""},
		{"an editor annotates it when it is approved", change(editor(), plugin(), isApproved, []changeRequest{annotated(cmapi.VenafiCustomFieldsAnnotationKey)}), metadata},
		{"an editor labels it when it is approved", change(editor(), plugin(), isApproved, []changeRequest{labelled("use-solver")}), metadata},
		{"an issuer annotates it when it is approved", issuer(change(editor(), plugin(), isApproved, []changeRequest{annotated("venafi.cert-manager.io/pickup-id")})), ""},
		{"the garbage collector takes its owner off", change(editor(), plugin(), isApproved, []changeRequest{func(cr *cmapi.CertificateRequest) { cr.OwnerReferences = nil }}), ""},

		{"the controller approves", status(decider(), plugin(), approved), ""},
		{"the controller says what it would approve", status(decider(), plugin(), deniedAndMendable), ""},
		{"the controller approves its own", status(decider(), decider(), approved), ""},
		{"another approves", status(editor(), plugin(), approved), decides},
		{"another approves another's", status(editor(), editor(), approved), ""},
		{"the controller approves another's", status(decider(), editor(), approved), answers},
		{"the controller writes a certificate", status(decider(), plugin(), withCertificate), answers},
		{"the controller writes a CA", status(decider(), plugin(), withCACert), answers},
		{"the controller writes that it is ready", status(decider(), plugin(), condition(cmapi.CertificateRequestConditionReady)), answers},
		{"the controller denies what waits", waiting(status(decider(), plugin(), condition(cmapi.CertificateRequestConditionDenied)), "Pending", "Pending"), ""},
		{"… and says why it waits", waiting(status(decider(), plugin(), condition(cmapi.CertificateRequestConditionDenied)), "Pending", "Failed"), answers},
		{"an issuer answers", status(editor(), plugin(), withCertificate, withCACert, condition(cmapi.CertificateRequestConditionReady)), ""},

		{"a node plugin deletes its request", remove(plugin(), plugin()), ""},
		{"a node plugin deletes another node's", remove(other, plugin()), deletes},
		{"the controller deletes its request", remove(decider(), decider()), ""},
		{"the controller deletes another's", remove(decider(), plugin()), deletesIt},
		{"an editor deletes a request", remove(editor(), plugin()), ""},

		{"a node plugin tells its pod", tell(plugin(), func(*eventsv1.Event) {}), ""},
		{"… with a finalizer", tell(plugin(), func(e *eventsv1.Event) { e.Finalizers = []string{"example.org/never"} }), binds},
		{"… owned by a pod", tell(plugin(), func(e *eventsv1.Event) { e.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod"}} }), binds},
		{"… of another kind", tell(plugin(), func(e *eventsv1.Event) { e.Regarding.Kind = "Node" }), tells},
		{"… as another node", tell(plugin(), func(e *eventsv1.Event) { e.ReportingInstance = "node-b" }), tells},
		{"… by a token without a node", tell(nowhere, func(e *eventsv1.Event) { e.ReportingInstance = "" }), tells},
		{"the controller tells", tell(decider(), func(e *eventsv1.Event) { e.Regarding.Kind = "Secret" }), ""},
		{"the controller tells again", retell(decider(), "mayfly-controller"), ""},
		{"the controller changes another's event", retell(decider(), "kubelet"), retells},
		{"another changes an event", retell(editor(), "kubelet"), ""},

		{"a node keeps its ranges", ranges(node(), []string{"10.0.0.0/24"}, []string{"10.0.0.0/24"}), ""},
		{"a node sets its ranges", ranges(node(), []string{"10.0.0.0/8"}, nil), cidrs},
		{"an administrator sets them", ranges(editor(), []string{"10.0.0.0/8"}, nil), ""},

		{"a node asks for itself", podRequest(node(), asWritten), ""},
		{"a node asks for another", podRequest(node(), func(pcr *certificatesv1.PodCertificateRequest) { pcr.Spec.NodeName = "node-b" }), only},
		{"… of another's signer", podRequest(node(), func(pcr *certificatesv1.PodCertificateRequest) {
			pcr.Spec.SignerName, pcr.Spec.NodeName, pcr.Finalizers = another, "node-b", []string{"example.org/never"}
		}), ""},
		{"the name of a node alone", podRequest(&user.DefaultInfo{Name: node().Name}, asWritten), only},
		{"a node's request with a finalizer", podRequest(node(), func(pcr *certificatesv1.PodCertificateRequest) { pcr.Finalizers = []string{"example.org/never"} }), podBlocks},
		{"… that blocks its owner", podRequest(node(), func(pcr *certificatesv1.PodCertificateRequest) { noOwnDeletion(&pcr.OwnerReferences[0]) }), podBlocks},
		{"… that its owner controls", podRequest(node(), func(pcr *certificatesv1.PodCertificateRequest) { ownerAsControl(&pcr.OwnerReferences[0]) }), podBlocks},
		{"… that another pod owns", podRequest(node(), func(pcr *certificatesv1.PodCertificateRequest) { pcr.OwnerReferences[0].UID = "2" }), podBlocks},
		{"… that a Node owns", podRequest(node(), func(pcr *certificatesv1.PodCertificateRequest) { pcr.OwnerReferences[0].Kind = "Node" }), podBlocks},
		{"… that nobody owns", podRequest(node(), func(pcr *certificatesv1.PodCertificateRequest) { pcr.OwnerReferences = nil }), ""},
		{"the controller deletes a request of ours", removePodRequest(decider(), ours), ""},
		{"the controller deletes another signer's", removePodRequest(decider(), another), podGone},
		{"another deletes another signer's", removePodRequest(editor(), another), ""},

		{"the controller publishes roots", publish(decider(), bundle(ours), nil), ""},
		{"the controller changes its roots", publish(decider(), bundle(corp), bundle(corp)), ""},
		{"the controller publishes another signer's", publish(decider(), bundle(another), nil), publishes},
		{"the controller publishes nobody's", publish(decider(), bundle(""), nil), publishes},
		{"the controller changes nobody's", publish(decider(), bundle(""), bundle("")), publishes},
		{"the controller gives a bundle to another signer", publish(decider(), bundle(another), bundle(ours)), publishes},
		{"the controller takes nobody's", publish(decider(), bundle(ours), bundle("")), publishes},
		{"the controller pins a bundle", publish(decider(), bundle(ours, "example.org/never"), nil), pinned},
		{"another publishes nobody's", publish(editor(), bundle(""), bundle("")), ""},
	}
	all := compiled(t)
	missed := map[string]bool{}
	for _, p := range all {
		for _, v := range p.Spec.Validations {
			missed[p.Name+": "+v.Message] = true
		}
	}
	for _, row := range rows {
		got := row.call.denials(t, all)
		if strings.Join(got, "; ") != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
		delete(missed, row.want)
	}
	delete(missed, "mayfly-requests: a request of Mayfly's node plugin has labels or annotations that issuers read") // Its words have the key.
	for message := range missed {
		t.Errorf("no row is denied by %s", message)
	}
}
