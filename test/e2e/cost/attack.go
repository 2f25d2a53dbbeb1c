package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	cmclient "github.com/cert-manager/cert-manager/pkg/client/clientset/versioned"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/test/cluster"
	"github.com/mayfly-csi/mayfly/test/forge"
)

const (
	honestNode, otherNode = "node-a", "node-b"

	attackers  = "cost-attack" // Namespace, is made for the run.
	system     = "mayfly-system"
	manifests  = "../../manifests/"
	floodWith  = 8      // Calls at a time.
	atMost     = 10_000 // Requests of one attack.
	nativeEach = 125    // Sources of a pod: more of one pod are not signed.
)

// A siege is a cluster with mayfly-controller, which somebody attacks.
type siege struct {
	*cluster.Cluster
	asNode bool // Mode pod-certificate, with the controller's own CA; mode driver otherwise, with an issuer of cert-manager.
	tell   func(format string, args ...any)
}

// attacked compares how long a pod takes to start while somebody attacks mayfly-controller with how long it takes
// without that, for n pods of each attack, one by one.
func attacked(ctx context.Context, s *siege, n int) (rows []row, err error) {
	defer func() { err = errors.Join(err, s.clear(context.WithoutCancel(ctx))) }()
	if err := s.prepare(ctx); err != nil {
		return nil, err
	}
	usual, err := s.starts(ctx, n)
	if err != nil {
		return nil, err
	}
	for _, attack := range []struct {
		name string
		run  func(ctx context.Context) error
	}{
		{"a pod of 1.4 MiB with 100 volumes", s.largePod},
		{"1,000 native sources", s.nativeSources},
		{"a flood of strangers' CertificateRequests", s.strangers},
		{"a storm of denials on the pod's own node", s.denials},
		{"a thief of another node's token", s.thief},
		{"nothing, again", func(context.Context) error { return nil }},
	} {
		took, err := s.during(ctx, n, attack.run)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", attack.name, err)
		}
		r := newRow(attack.name, usual, took)
		s.tell("%s: %.2f times as long", r.Name, r.Ratio)
		rows = append(rows, r)
	}
	return rows, nil
}

// during starts pods while an attack is under way.
func (s *siege) during(ctx context.Context, n int, attack func(ctx context.Context) error) (took []float64, err error) {
	during, stop := context.WithCancel(ctx)
	var group errgroup.Group
	group.Go(func() error {
		if err := attack(during); during.Err() == nil {
			return err
		}
		return nil
	})
	took, err = s.starts(ctx, n)
	stop()
	return took, errors.Join(err, group.Wait())
}

// starts starts n pods with a volume one by one, and returns how many seconds each took.
func (s *siege) starts(ctx context.Context, n int) (took []float64, err error) {
	for range n {
		times, err := start(ctx, s.Cluster, 1, s.volume())
		if err != nil {
			return nil, err
		}
		took = append(took, times[0].Seconds())
	}
	return took, nil
}

// volume returns the attributes of a volume.
func (s *siege) volume() map[string]string {
	v := byIssuer()
	if s.asNode {
		maps.Copy(v, map[string]string{
			"csi.mayfly.dev/issuer-group": "csi.mayfly.dev", "csi.mayfly.dev/issuer-kind": "CA", "csi.mayfly.dev/issuer-name": "mayfly-ca",
		})
	}
	return v
}

// prepare installs mayfly-controller, which approves, and signs for native sources. Pods without a node run on one.
func (s *siege) prepare(ctx context.Context) error {
	if _, err := s.Namespace(ctx, attackers); err != nil {
		return err
	}
	commands := [][]string{
		{"cordon", otherNode},
		{"apply", "--filename", manifests + "controller"},
		{"apply", "--filename", manifests + "authority"},
		{"apply", "--filename", manifests + "modes/pod-certificate"},
		{"--namespace", system, "set", "env", "deployment/mayfly-controller", "MAYFLY_POD_CERTIFICATES=true"},
		{"--namespace", system, "rollout", "status", "deployment/mayfly-controller", "--timeout=2m"},
	}
	if s.asNode {
		commands = append(commands,
			[]string{"--namespace", system, "set", "env", "daemonset/mayfly", "MAYFLY_SIGNER=pod-certificate"},
			[]string{"--namespace", system, "rollout", "status", "daemonset/mayfly", "--timeout=2m"},
			[]string{"delete", "--filename", manifests + "rbac.yaml"})
	}
	return s.kubectl(ctx, commands)
}

// clear removes what was made for the run.
func (s *siege) clear(ctx context.Context) error {
	return s.kubectl(ctx, [][]string{
		{"apply", "--filename", manifests + "rbac.yaml"},
		{"--namespace", system, "set", "env", "daemonset/mayfly", "MAYFLY_SIGNER-"},
		{"--namespace", system, "rollout", "status", "daemonset/mayfly", "--timeout=2m"},
		{"delete", "--ignore-not-found", "namespace", attackers},
		{"delete", "--ignore-not-found", "--filename", manifests + "controller", "--filename", manifests + "modes/pod-certificate"},
		{"delete", "--ignore-not-found", "--filename", manifests + "authority"},
		{"delete", "--ignore-not-found", "clustertrustbundle", "csi.mayfly.dev:volume:ca"},
		{"uncordon", otherNode},
	})
}

// kubectl runs commands of kubectl, and tells of all that fail.
func (s *siege) kubectl(ctx context.Context, commands [][]string) (err error) {
	for _, args := range commands {
		_, failed := s.Kubectl(ctx, args...)
		err = errors.Join(err, failed)
	}
	return err
}

// thief asks with the token of another node's plugin, for a pod of that node, and for one of the honest pod's node
// where the API server lets it.
func (s *siege) thief(ctx context.Context) error {
	own, err := s.victim(ctx, "own", otherNode, nil)
	if err != nil {
		return err
	}
	if s.asNode {
		return s.floodAs(ctx, otherNode, own)
	}
	other, err := s.victim(ctx, "other", honestNode, nil)
	if err != nil {
		return err
	}
	return s.floodAs(ctx, otherNode, own, other)
}

// denials asks for a name that no pod has, as the honest pod's own node plugin.
func (s *siege) denials(ctx context.Context) error {
	greedy, err := s.victim(ctx, "greedy", honestNode, map[string]string{"csi.mayfly.dev/dns-names": "www.example.org"})
	if err != nil {
		return err
	}
	return s.floodAs(ctx, honestNode, greedy)
}

// strangers asks another issuer than cert-manager's, as somebody who is nothing to Mayfly.
func (s *siege) strangers(ctx context.Context) error {
	cr, err := request("stranger")
	if err != nil {
		return err
	}
	cr.Annotations = map[string]string{"example.org/a": strings.Repeat("a", 16<<10)}
	cr.Spec.IssuerRef.Group = "example.org"
	client, err := cmclient.NewForConfig(s.REST)
	if err != nil {
		return err
	}
	return s.flood(ctx, cr.Name, func(ctx context.Context, i int) error {
		one := cr.DeepCopy()
		one.Name = fmt.Sprintf("%s-%d", cr.Name, i)
		_, err := client.CertmanagerV1().CertificateRequests(attackers).Create(ctx, one, metav1.CreateOptions{})
		return err
	})
}

// largePod asks for each of the volumes of a pod of nearly the largest size that the API server stores.
func (s *siege) largePod(ctx context.Context) error {
	large := pod(0, s.volume())
	large.Name, large.Spec.NodeName = "large", otherNode
	large.Annotations = map[string]string{"example.org/a": strings.Repeat("a", 250<<10)}
	large.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "A", Value: strings.Repeat("a", 500<<10)}}
	var names []string
	for i := range 120 {
		names = append(names, fmt.Sprintf("name-%d.with-many-more-letters.%s.svc", i, attackers))
	}
	one := large.Spec.Volumes[0]
	one.CSI.VolumeAttributes["csi.mayfly.dev/dns-names"] = strings.Join(names, ",")
	large.Spec.Volumes = nil
	for i := range 100 {
		v := one.DeepCopy()
		v.Name = fmt.Sprint("tls-", i)
		large.Spec.Volumes = append(large.Spec.Volumes, *v)
	}
	large.Spec.Containers[0].VolumeMounts[0].Name = "tls-0"
	made, err := s.Client.CoreV1().Pods(attackers).Create(ctx, large, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	var asFor []*corev1.Pod
	for _, v := range made.Spec.Volumes {
		if v.CSI != nil {
			p := made.DeepCopy()
			p.Spec.Volumes = []corev1.Volume{v}
			asFor = append(asFor, p)
		}
	}
	return s.floodAs(ctx, otherNode, asFor...)
}

// nativeSources has the kubelet of the other node ask for as many sources of its pods as are signed of a pod.
func (s *siege) nativeSources(ctx context.Context) error {
	for i := range 8 {
		var sources []corev1.VolumeProjection
		for j := range nativeEach {
			sources = append(sources, corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{
				SignerName: "csi.mayfly.dev/volume", KeyType: "ECDSAP256", CredentialBundlePath: fmt.Sprintf("bundle-%d.pem", j),
			}})
		}
		p := pod(i, s.volume())
		p.Name, p.Spec.NodeName = fmt.Sprint("native-", i), otherNode
		p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: sources}}
		if _, err := s.Client.CoreV1().Pods(attackers).Create(ctx, p, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// victim makes a pod of a node that somebody asks for.
func (s *siege) victim(ctx context.Context, name, node string, attributes map[string]string) (*corev1.Pod, error) {
	v := s.volume()
	maps.Copy(v, attributes)
	p := pod(0, v)
	p.Name, p.Spec.NodeName = name, node
	return s.Client.CoreV1().Pods(attackers).Create(ctx, p, metav1.CreateOptions{})
}

// floodAs asks for pods as the node plugin of a node does in this mode, with its token.
func (s *siege) floodAs(ctx context.Context, node string, pods ...*corev1.Pod) error {
	config, err := s.plugin(ctx, node)
	if err != nil {
		return err
	}
	one := s.asker(config)
	if s.asNode {
		if one, err = s.askerAsNode(ctx, config, node); err != nil {
			return err
		}
	}
	return s.flood(ctx, pods[0].Name, func(ctx context.Context, i int) error {
		of := pods[i%len(pods)]
		return one(ctx, of, fmt.Sprintf("%s-%d", of.Name, i))
	})
}

// An ask asks for a pod's certificate by a request of that name.
type ask func(ctx context.Context, of *corev1.Pod, name string) error

// asker asks by CertificateRequests.
func (s *siege) asker(config *rest.Config) ask {
	client := cmclient.NewForConfigOrDie(config)
	return func(ctx context.Context, of *corev1.Pod, name string) error {
		cr, err := forge.Request(of, name)
		if err != nil {
			return err
		}
		_, err = client.CertmanagerV1().CertificateRequests(of.Namespace).Create(ctx, cr, metav1.CreateOptions{})
		return err
	}
}

// askerAsNode asks by PodCertificateRequests.
func (s *siege) askerAsNode(ctx context.Context, config *rest.Config, node string) (ask, error) {
	config.Impersonate.UserName = "system:node:" + node
	client := kubernetes.NewForConfigOrDie(config)
	n, err := s.Client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	account, err := s.Client.CoreV1().ServiceAccounts(attackers).Get(ctx, "default", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, of *corev1.Pod, name string) error {
		pcr, err := forge.PodCertificate(of, name, n.UID, account.UID)
		if err != nil {
			return err
		}
		_, err = client.CertificatesV1().PodCertificateRequests(of.Namespace).Create(ctx, pcr, metav1.CreateOptions{})
		return err
	}, nil
}

// plugin returns the API server for the token of a node's plugin.
func (s *siege) plugin(ctx context.Context, node string) (*rest.Config, error) {
	pods, err := s.Client.CoreV1().Pods(system).List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=mayfly", FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("%d node plugins run on %s", len(pods.Items), node)
	}
	of := pods.Items[0]
	token, err := s.Client.CoreV1().ServiceAccounts(system).CreateToken(ctx, "mayfly", &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: of.Name, UID: of.UID},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	config := rest.AnonymousClientConfig(s.REST)
	config.BearerToken, config.QPS = token.Status.Token, -1
	return config, nil
}

// flood asks as fast as the API server takes it, until ctx ends.
func (s *siege) flood(ctx context.Context, name string, ask func(ctx context.Context, i int) error) error {
	began, made := time.Now(), 0
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(floodWith)
	for ; made < atMost && ctx.Err() == nil; made++ {
		i := made
		group.Go(func() error { return ask(ctx, i) })
	}
	err := group.Wait()
	s.tell("%d requests for %s in %s", made, name, time.Since(began).Round(time.Second))
	return err
}
