// Command door hands connections that come in at a socket on to an address, byte by byte and at once: one that waits for more to send (Nagle's algorithm) adds
// 40 ms, a delayed acknowledgement, to most requests of HTTP/2 (tcp(7), TCP_NODELAY, which Go sets).
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
)

// socket is the file that listens: the first after the standard ones.
const socket = 3

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "door:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return errors.New("name the address")
	}
	listener, err := net.FileListener(os.NewFile(socket, "door"))
	if err != nil {
		return fmt.Errorf("open the socket: %w", err)
	}
	for {
		outside, err := listener.Accept()
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go serve(outside, args[0])
	}
}

// serve lasts as long as the connection. One that can't be handed on is closed.
func serve(outside net.Conn, address string) {
	defer outside.Close() //nolint:errcheck // There is nobody to tell.
	inside, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer inside.Close() //nolint:errcheck // There is nobody to tell.
	done := make(chan struct{})
	go func() {
		defer close(done)
		hand(inside, outside)
	}()
	hand(outside, inside)
	<-done
}

// hand hands on until there is no more, or one side is gone, and says so to the other.
func hand(to, from net.Conn) {
	_, err := io.Copy(to, from)
	if tcp, ok := to.(*net.TCPConn); ok && err == nil {
		_ = tcp.CloseWrite() // The other may be gone.
		return
	}
	_ = errors.Join(to.Close(), from.Close()) // Both directions end.
}
