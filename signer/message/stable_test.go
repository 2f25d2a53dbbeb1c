package message_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"testing"

	"github.com/mayfly-csi/mayfly/signer/message"
)

// The text of a failed call has neither its URL, which a watch changes, nor the port of the connection.
func TestTheTextOfACallThatFailed(t *testing.T) {
	server := &net.TCPAddr{IP: net.IPv4(10, 96, 0, 1), Port: 443}
	failed := func(err error) error {
		return &url.Error{Op: "Get", URL: "https://10.96.0.1/x?timeoutSeconds=387", Err: err}
	}
	for name, row := range map[string]struct {
		err  error
		want string
	}{
		"refused": {
			failed(&net.OpError{Op: "dial", Net: "tcp", Addr: server, Err: syscall.ECONNREFUSED}),
			"the API server did not answer: dial tcp 10.96.0.1:443: connection refused",
		},
		"reset": {
			failed(&net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(10, 0, 0, 5), Port: 53412}, Addr: server, Err: syscall.ECONNRESET}),
			"the API server did not answer: read tcp 10.96.0.1:443: connection reset by peer",
		},
		"closed":         {failed(io.EOF), "the API server did not answer: EOF"},
		"a certificate":  {failed(errors.New("unknown authority")), "unknown authority"},
		"inside another": {fmt.Errorf("list: %w", failed(io.EOF)), "the API server did not answer: EOF"},
		"no URL":         {errors.New("no"), "no"},
	} {
		got := message.Stable(row.err)
		if got.Error() != row.want {
			t.Errorf("%s: %q, want %q", name, got, row.want)
		}
		if cause := errors.Unwrap(row.err); cause != nil && errors.Is(row.err, syscall.ECONNRESET) && !errors.Is(got, syscall.ECONNRESET) {
			t.Errorf("%s: the cause is lost", name)
		}
	}
}
