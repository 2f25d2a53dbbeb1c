package decision

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/mayfly-csi/mayfly/signer"
	"github.com/mayfly-csi/mayfly/signer/object"
)

// rightInterval is how often the API server is asked for the rights of a namespace while somebody waits for them. Who
// waits may get the answer that another one got that long ago: it knows within twice the interval.
const rightInterval = 2 * time.Second

// ErrGranted is the error of a wait for rights that are granted: something else refused the call, such as an admission
// policy.
var ErrGranted = errors.New("the right is granted")

// A Right is one to do something with the objects of a resource in a namespace.
type Right struct {
	Verb     string `json:"verb"`
	Group    string `json:"group,omitempty"`
	Resource string `json:"resource"`
}

// A review is a SelfSubjectAccessReview (k8s.io/api/authorization/v1), as far as it is needed.
type review struct {
	metav1.TypeMeta

	Spec struct {
		Attributes struct {
			Namespace string `json:"namespace"`
			Right
		} `json:"resourceAttributes"`
	} `json:"spec"`
	Status struct {
		Allowed bool `json:"allowed"`
	} `json:"status"`
}

// Rights waits for rights that the API server said to be missing. Every caller may ask for its own rights (kubernetes
// plugin/pkg/auth/authorizer/rbac/bootstrappolicy, system:basic-user).
type Rights struct {
	reviews, anonymous object.Client[review]

	all []Right

	questions singleflight.Group // By account.
	mu        sync.Mutex
	answers   map[Account]answer // Of the last rightInterval.
}

// An answer says whether an account had the rights at a time.
type answer struct {
	at      time.Time
	granted bool
}

// An Account is one that needs the rights in a namespace.
type Account struct {
	Namespace string
	Name      string // Of a service account of the namespace; empty: the account of the config.
}

// NewRights makes a Rights for those that are needed together.
func NewRights(config *rest.Config, all ...Right) (*Rights, error) {
	const resource = "selfsubjectaccessreviews"
	api, err := object.Connect(config, reviewVersion, nil)
	anonymous, anonymousErr := object.Connect(object.Anonymous(config), reviewVersion, nil)
	return &Rights{
		reviews: object.New[review](api, resource), anonymous: object.New[review](anonymous, resource),
		all: all, answers: map[Account]answer{},
	}, errors.Join(err, anonymousErr)
}

// reviewVersion is the API version of SelfSubjectAccessReviews.
var reviewVersion = schema.GroupVersion{Group: "authorization.k8s.io", Version: "v1"}

// WhenGranted lets an error of a call that was forbidden wait for the rights.
func (r *Rights) WhenGranted(err error, of Account) error {
	var refused *signer.Error
	if apierrors.IsForbidden(err) && errors.As(err, &refused) {
		refused.Mended = func(ctx context.Context, token func() signer.Token) error { return r.Await(ctx, of, token) }
	}
	return err
}

// Await returns when the account has the rights; ErrGranted if it has them at first. It returns an error when ctx ends,
// or the API server does not answer. token returns the current token of an account that has a name; while it returns
// none, nobody is asked.
func (r *Rights) Await(ctx context.Context, of Account, token func() signer.Token) error {
	for first := true; ; first = false {
		granted, err := r.granted(ctx, of, token)
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

// Held reports whether the account of the config has the rights in all namespaces.
func (r *Rights) Held(ctx context.Context) (bool, error) { return r.granted(ctx, Account{}, nil) }

// granted reports whether the account has the rights. All that wait for them share the questions of rightInterval.
func (r *Rights) granted(ctx context.Context, of Account, token func() signer.Token) (bool, error) {
	granted, err, _ := r.questions.Do(of.Namespace+"/"+of.Name, func() (any, error) {
		if last, ok := r.lastAnswer(of); ok {
			return last, nil
		}
		return r.ask(ctx, of, token)
	})
	switch {
	case errors.Is(err, context.Canceled) && ctx.Err() == nil: // The wait of who asked has ended; this one goes on.
		return false, nil
	case err != nil:
		return false, err
	}
	return granted.(bool), nil //nolint:forcetypeassert // It is what ask returns.
}

// ask asks the API server for each right until one is refused.
func (r *Rights) ask(ctx context.Context, of Account, token func() signer.Token) (granted bool, err error) {
	var bearer signer.Token
	if of.Name != "" {
		if bearer = token(); bearer == "" {
			return false, nil
		}
	}
	for _, right := range r.all {
		if granted, err = r.has(ctx, of, right, bearer); err != nil {
			return false, fmt.Errorf("ask for the right to %s %s: %w", right.Verb, right.Resource, err)
		}
		if !granted {
			break
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.answers, func(_ Account, a answer) bool { return a.isOld() })
	r.answers[of] = answer{time.Now(), granted}
	return granted, nil
}

// has asks the API server for one right.
func (r *Rights) has(ctx context.Context, of Account, right Right, bearer signer.Token) (bool, error) {
	wanted := &review{TypeMeta: metav1.TypeMeta{Kind: "SelfSubjectAccessReview", APIVersion: reviewVersion.String()}}
	wanted.Spec.Attributes.Namespace, wanted.Spec.Attributes.Right = of.Namespace, right
	client := r.reviews
	if bearer != "" {
		client = r.anonymous.As(string(bearer))
	}
	answer, err := client.Create(ctx, wanted)
	if err != nil {
		return false, err
	}
	return answer.Status.Allowed, nil
}

// lastAnswer returns the answer of the last rightInterval, if there is one.
func (r *Rights) lastAnswer(of Account) (granted, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, ok := r.answers[of]
	return last.granted, ok && !last.isOld()
}

// isOld reports whether the answer is to be asked for again.
func (a answer) isOld() bool { return time.Since(a.at) >= rightInterval }
