// Package httpca is the signer that CONTRIBUTING.md shows. It asks a CA by one POST: the signing request in, the chain
// out.
package httpca

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"

	"github.com/mayfly-csi/mayfly/signer"
)

// longest is how much of an answer is read.
const longest = 1 << 20

// A Signer asks the CA at URL. It implements [signer.Signer].
type Signer struct {
	URL    string
	Client *http.Client
}

// Sign implements [signer.Signer]. The CA answers at once, so that there is nothing to wait for.
func (s *Signer) Sign(ctx context.Context, req signer.Request) (signer.Issued, error) {
	query := url.Values{"attempt": {req.Attempt.ID}, "duration": {req.Duration.String()}}
	for _, usage := range req.Usages {
		query.Add("usage", string(usage))
	}
	call, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"?"+query.Encode(), bytes.NewReader(req.CSR))
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Invalid, "ask the CA at %s: %w", s.URL, err)
	}
	answer, err := s.Client.Do(call)
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Unavailable, "ask the CA at %s: %w", s.URL, err)
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, longest))
	if err != nil {
		return signer.Issued{}, signer.Errorf(signer.Unavailable, "read the answer of %s: %w", s.URL, err)
	}
	if answer.StatusCode != http.StatusOK {
		return signer.Issued{}, signer.Errorf(kind(answer.StatusCode), "ask the CA: %s: %s", answer.Status, text)
	}
	return signer.Issued{Chain: text}, nil
}

// kind returns what a status of the CA means for the attempt: whether the next try is the same one, and how soon it
// comes.
func kind(status int) signer.Kind {
	switch {
	case status == http.StatusForbidden:
		return signer.Denied
	case status == http.StatusTooManyRequests, status >= http.StatusInternalServerError:
		return signer.Unavailable
	default:
		return signer.Invalid
	}
}
