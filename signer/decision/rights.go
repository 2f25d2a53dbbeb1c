package decision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
)

// rightInterval is how often the API server is asked for a right of a namespace while somebody waits for it. Who waits
// may get the answer that another one got that long ago: it knows within twice the interval.
const rightInterval = 2 * time.Second

// ErrGranted is the error of a wait for a right that is granted: something else refused the call, such as an admission
// policy.
var ErrGranted = errors.New("the right is granted")

// Rights waits for the right to create a kind of object, which the API server refused. Every caller may ask for its own
// rights (kubernetes plugin/pkg/auth/authorizer/rbac/bootstrappolicy, system:basic-user).
type Rights struct {
	api   rest.Interface
	right authorizationv1.ResourceAttributes // The namespace is empty.

	questions singleflight.Group // By namespace.
	mu        sync.Mutex
	refusedAt map[string]time.Time // When the right was last refused in a namespace.
}

// NewRights makes a Rights for the objects of a group and resource.
func NewRights(config *rest.Config, group, resource string) (*Rights, error) {
	scheme, version := runtime.NewScheme(), authorizationv1.SchemeGroupVersion
	scheme.AddKnownTypes(version, &authorizationv1.SelfSubjectAccessReview{})
	metav1.AddToGroupVersion(scheme, version)
	config = rest.CopyConfig(config)
	config.QPS = -1 // k8s.io/client-go rest/config.go: a negative rate is no limit.
	config.APIPath, config.GroupVersion = "/apis", &version
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	api, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make a client for SelfSubjectAccessReviews: %w", err)
	}
	right := authorizationv1.ResourceAttributes{Verb: "create", Group: group, Resource: resource}
	return &Rights{api: api, right: right, refusedAt: map[string]time.Time{}}, nil
}

// Await returns when the right is granted in the namespace; ErrGranted if it is at first. It returns an error when ctx
// ends, or the API server does not answer.
func (r *Rights) Await(ctx context.Context, namespace string) error {
	for first := true; ; first = false {
		granted, err := r.granted(ctx, namespace)
		switch {
		case err != nil:
			return err
		case granted && first:
			return ErrGranted
		case granted:
			return nil
		}
		if err := sleep(ctx, rightInterval); err != nil {
			return err
		}
	}
}

// granted reports whether the right is granted. All that wait for it share one question in rightInterval.
func (r *Rights) granted(ctx context.Context, namespace string) (bool, error) {
	if r.refusedLately(namespace) {
		return false, nil
	}
	granted, err, _ := r.questions.Do(namespace, func() (any, error) { return r.ask(ctx, namespace) })
	if err != nil {
		return false, fmt.Errorf("ask for the right to create %s: %w", r.right.Resource, err)
	}
	return granted.(bool), nil //nolint:forcetypeassert // It is what ask returns.
}

// ask asks the API server.
func (r *Rights) ask(ctx context.Context, namespace string) (bool, error) {
	right := r.right
	right.Namespace = namespace
	review := &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &right},
	}
	if err := r.api.Post().Resource("selfsubjectaccessreviews").Body(review).Do(ctx).Into(review); err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.refusedAt, namespace)
	if !review.Status.Allowed {
		r.refusedAt[namespace] = time.Now()
	}
	return review.Status.Allowed, nil
}

// refusedLately reports whether the right was refused less than rightInterval ago.
func (r *Rights) refusedLately(namespace string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.refusedAt[namespace]
	return ok && time.Since(at) < rightInterval
}
