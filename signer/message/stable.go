package message

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
)

// Stable returns an error of a call to the API server without what differs between two tries that fail alike, the URL
// and the port of the connection, and says so if the connection failed. The kubelet counts Events only if their texts
// are equal.
func Stable(err error) error {
	var failed *url.Error
	if !errors.As(err, &failed) {
		return err
	}
	var op *net.OpError
	switch {
	case errors.As(failed.Err, &op):
		stable := *op
		stable.Source = nil
		return fmt.Errorf("the API server did not answer: %w", &stable)
	case errors.Is(failed.Err, io.EOF):
		return fmt.Errorf("the API server did not answer: %w", failed.Err)
	}
	return failed.Err
}
