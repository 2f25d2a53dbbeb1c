package trust

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/mayfly-csi/mayfly/driver/volume"
	"github.com/mayfly-csi/mayfly/signer/api"
	"github.com/mayfly-csi/mayfly/signer/chain"
)

var errNoAPI = errors.New("this driver knows no API server: its operator sets --kubeconfig, or another --signer")

// A cluster watches the sources that an API server has.
type cluster struct {
	bundles, configMaps rest.Interface
}

// newCluster makes the clients of a cluster.
func newCluster(config *rest.Config) (*cluster, error) {
	configMaps, err1 := api.Core(config)
	bundles, err2 := api.Certificates(config)
	return &cluster{bundles: bundles, configMaps: configMaps}, errors.Join(err1, err2)
}

// watch reports each content of a source in the cluster, until ctx ends. A watch by name costs the API server only
// that object's events (k8s.io/apiserver pkg/storage/cacher/cacher.go); for a signer's bundles it filters those of
// all.
func (c *cluster) watch(ctx context.Context, source volume.Source, report func(Answer)) {
	s := newSourceStore(source)
	l := &lister{api: c.bundles, resource: "clustertrustbundles", list: &api.List[api.ClusterTrustBundle]{},
		listFailed: s.listFailed}
	var kind runtime.Object = &api.ClusterTrustBundle{}
	l.fields = fields.OneTermEqualSelector(metav1.ObjectNameField, source.Name).String()
	switch {
	case source.Kind == volume.ConfigMapSource:
		l.api, l.resource, l.namespace = c.configMaps, "configmaps", source.Namespace
		l.list, kind = &api.List[api.ConfigMap]{}, &api.ConfigMap{}
	case source.Signer != "":
		l.fields = fields.OneTermEqualSelector("spec.signerName", source.Signer).String()
		l.labels = strings.ReplaceAll(source.Labels, "&", ",")
	}
	lw := api.Listed{ListWatch: &cache.ListWatch{ListWithContextFunc: l.List, WatchFuncWithContext: l.Watch}}
	var reports sync.WaitGroup
	defer reports.Wait()
	reports.Go(func() { s.run(ctx, report) })
	cache.NewReflectorWithOptions(lw, kind, s, cache.ReflectorOptions{Name: source.String()}).RunWithContext(ctx)
}

// A lister lists and watches the objects of one source.
type lister struct {
	api            rest.Interface
	namespace      string
	resource       string
	fields, labels string
	list           runtime.Object // An empty one of its kind.
	listFailed     func(error)    // Called with the error of each list.
}

// request returns the request for the source's objects.
func (l *lister) request(o *metav1.ListOptions) *rest.Request {
	o.FieldSelector, o.LabelSelector = l.fields, l.labels
	return l.api.Get().NamespaceIfScoped(l.namespace, l.namespace != "").Resource(l.resource).
		VersionedParams(o, metav1.ParameterCodec)
}

// List lists the source's objects.
func (l *lister) List(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list := l.list.DeepCopyObject()
	err := l.request(&o).Do(ctx).Into(list)
	if err != nil && ctx.Err() == nil {
		l.listFailed(err)
	}
	return list, err
}

// Watch watches the source's objects. After an error the reflector lists or watches again.
func (l *lister) Watch(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	return l.request(&o).Watch(ctx)
}

// reportInterval is the least time between two reports of a source: whoever may write a ConfigMap can do so all the
// time, and its certificates are parsed for each report.
const reportInterval = time.Second

// A sourceStore holds one source's objects. The source's reflector fills it: it implements [cache.ReflectorStore].
type sourceStore struct {
	source  volume.Source
	changed chan struct{} // Has an element after a change that was not reported.

	mu      sync.Mutex
	objects map[string]any    // By their names; nil: it was parsed.
	answers map[string]Answer // Of those that were parsed.
	failure error             // Of the last list; nil if there was a change after it.
	listed  bool
}

func newSourceStore(source volume.Source) *sourceStore {
	return &sourceStore{
		source: source, changed: make(chan struct{}, 1), objects: map[string]any{}, answers: map[string]Answer{},
	}
}

// run reports the source at once after a change, and no more often than after each reportInterval, until ctx ends.
func (s *sourceStore) run(ctx context.Context, report func(Answer)) {
	for {
		select {
		case <-s.changed:
			report(s.answer())
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(reportInterval):
		case <-ctx.Done():
			return
		}
	}
}

// Replace implements [cache.ReflectorStore].
func (s *sourceStore) Replace(objects []any, _ string) error {
	return s.change(func() {
		s.objects, s.answers = map[string]any{}, map[string]Answer{}
		for _, o := range objects {
			s.set(o, true)
		}
	})
}

// Add implements [cache.ReflectorStore].
func (s *sourceStore) Add(object any) error { return s.change(func() { s.set(object, true) }) }

// Update implements [cache.ReflectorStore].
func (s *sourceStore) Update(object any) error { return s.Add(object) }

// Delete implements [cache.ReflectorStore].
func (s *sourceStore) Delete(object any) error { return s.change(func() { s.set(object, false) }) }

// Resync implements [cache.ReflectorStore].
func (s *sourceStore) Resync() error { return nil }

// change changes the objects and has that reported. It returns nil, as the reflector's store does.
func (s *sourceStore) change(do func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
	s.failure, s.listed = nil, true
	s.signal()
	return nil
}

// signal makes run report the source. s.mu must be held.
func (s *sourceStore) signal() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// set stores an object, or removes it if it is not there. s.mu must be held.
func (s *sourceStore) set(object any, there bool) {
	o, ok := object.(metav1.Object)
	if !ok {
		return
	}
	delete(s.answers, o.GetName())
	delete(s.objects, o.GetName())
	if there {
		s.objects[o.GetName()] = object
	}
}

// answer returns the certificates of all objects, in the order of the objects' names, or the first error.
func (s *sourceStore) answer() Answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure != nil {
		return Answer{Err: s.failure}
	}
	if len(s.objects) == 0 {
		return Answer{Err: s.absent()}
	}
	var lists []chain.Bundle
	for _, name := range slices.Sorted(maps.Keys(s.objects)) {
		a, ok := s.answers[name]
		if !ok {
			a = s.read(s.objects[name])
			s.answers[name], s.objects[name] = a, nil // A ConfigMap may have a lot besides.
		}
		if a.Err != nil {
			return a
		}
		lists = append(lists, a.Certificates)
	}
	return Answer{Certificates: chain.Unite(lists...)}
}

// read returns the content of an object.
func (s *sourceStore) read(object any) Answer {
	switch o := object.(type) {
	case *api.ConfigMap:
		return s.fromConfigMap(o)
	case *api.ClusterTrustBundle:
		return answer([]byte(o.Spec.TrustBundle), "ClusterTrustBundle "+o.Name)
	}
	return Answer{Err: fmt.Errorf("%T is no source", object)}
}

// fromConfigMap returns the content of the source's key.
func (s *sourceStore) fromConfigMap(o *api.ConfigMap) Answer {
	what := fmt.Sprintf("ConfigMap %s/%s", o.Namespace, o.Name)
	if text, ok := o.Data[s.source.Key]; ok {
		return answer([]byte(text), what+", key "+s.source.Key)
	}
	if text, ok := o.BinaryData[s.source.Key]; ok {
		return answer(text, what+", key "+s.source.Key)
	}
	there := slices.Sorted(maps.Keys(o.Data))
	if len(there) == 0 {
		return Answer{Err: fmt.Errorf("%s has no key %s, and no other", what, s.source.Key)}
	}
	const some = 5
	if more := len(there) - some; more > 0 {
		there = append(there[:some], fmt.Sprintf("%d more", more))
	}
	return Answer{Err: fmt.Errorf("%s has no key %s; it has %s", what, s.source.Key, strings.Join(there, ", "))}
}

// answer parses PEM text; what names its origin in errors.
func answer(text []byte, what string) Answer {
	certificates, err := chain.Parse(text)
	if err != nil {
		return Answer{Err: fmt.Errorf("%s: %w", what, err)}
	}
	return Answer{Certificates: chain.Unite(certificates)}
}

// absent returns the error of a source without any object.
func (s *sourceStore) absent() error {
	switch {
	case s.source.Kind == volume.ConfigMapSource:
		return fmt.Errorf("ConfigMap %s/%s not found", s.source.Namespace, s.source.Name)
	case s.source.Labels != "":
		return fmt.Errorf("no ClusterTrustBundle of signer %s has the labels %s", s.source.Signer, s.source.Labels)
	case s.source.Signer != "":
		return fmt.Errorf("no ClusterTrustBundle is of signer %s", s.source.Signer)
	}
	return fmt.Errorf("ClusterTrustBundle %s not found", s.source.Name)
}

// listFailed makes run report that the source can't be read. After the first list an unreachable API server is not
// reported: the last answer stands.
func (s *sourceStore) listFailed(err error) {
	explained := s.explain(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.listed || !errors.Is(explained, ErrNoAnswer) {
		s.failure = explained
		s.signal()
	}
}

// ErrNoAnswer is the error of a source whose API server can't be reached. A pod that has the source's certificates is
// not warned of it.
var ErrNoAnswer = errors.New("the API server did not answer")

// explain returns the error of a list in terms of the source.
func (s *sourceStore) explain(err error) error {
	var unanswered *url.Error
	switch {
	case apierrors.IsForbidden(err) && s.source.Kind == volume.ConfigMapSource:
		return fmt.Errorf("%w (manifests/options/config-maps.yaml grants it)", err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err), apierrors.IsBadRequest(err),
		apierrors.IsInvalid(err):
		return err
	case apierrors.IsNotFound(err):
		return errors.New("this API server does not serve ClusterTrustBundles of certificates.k8s.io/v1, which " +
			"Kubernetes has from 1.37 on: name a ConfigMap or a file of the node instead")
	case errors.As(err, &unanswered): // Without its URL.
		return fmt.Errorf("%w: %w", ErrNoAnswer, unanswered.Err)
	}
	return fmt.Errorf("%w: %w", ErrNoAnswer, err)
}
