package issue

import (
	"sync"
	"time"

	"github.com/mayfly-csi/mayfly/driver/store"
	"github.com/mayfly-csi/mayfly/signer"
)

// A Token is a token of a pod's service account. It is kept only in memory.
type Token struct {
	Value     signer.Token
	ExpiresAt time.Time
}

// errNoToken is the error of an attempt that needs a token of the pod and has none.
var errNoToken = signer.Errorf(signer.NotYet, "there is no fresh token of the pod's service account, with which this "+
	"driver asks (use-token-request): the kubelet brings one with its next call, if the CSIDriver object has "+
	`tokenRequests: [{audience: ""}] and requiresRepublish: true`)

// tokens holds the tokens of volumes, by their ids.
type tokens struct {
	mu  sync.Mutex
	all map[string]Token
}

// use returns the token for a request; it is empty if the driver makes the request as itself.
func (t *tokens) use(id string, asPod bool, now time.Time) (signer.Token, error) {
	if !asPod {
		return "", nil
	}
	if token := t.current(id, now); token != "" {
		return token, nil
	}
	return "", errNoToken
}

// current returns the volume's token; it is empty if there is none that has not expired at now.
func (t *tokens) current(id string, now time.Time) signer.Token {
	t.mu.Lock()
	defer t.mu.Unlock()
	if token := t.all[id]; token.ExpiresAt.After(now) {
		return token.Value
	}
	return ""
}

// set sets the token of a volume; the zero Token removes it.
func (t *tokens) set(id string, token Token) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[string]Token{}
	}
	t.all[id] = token
	if token.Value == "" {
		delete(t.all, id)
	}
}

// SetToken sets the token for the next attempt, if the volume's requests are made as the pod. The backoff of a volume
// that waited for one ends.
func (i *Issuer) SetToken(v *store.Volume, token Token) {
	if !v.Spec().AsPod {
		i.tokens.set(v.ID(), Token{})
		return
	}
	i.tokens.set(v.ID(), token)
	if v.Removed() { // After Forget, perhaps.
		i.tokens.set(v.ID(), Token{})
		return
	}
	i.endBackoff(v, i.Clocks.Now(), func(r store.Record) bool { return r.Failure.Reason == errNoToken.Error() })
}
