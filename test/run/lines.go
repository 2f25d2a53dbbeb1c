package main

import (
	"bytes"
	"io"
	"sync"
)

// lines writes whole lines of several parts to one writer.
type lines struct {
	mu  sync.Mutex
	out io.Writer
}

// of returns a writer of one part's lines, each after the part's name. It keeps what is not a whole line yet.
func (l *lines) of(part string) io.Writer { return &prefixed{lines: l, prefix: part + ": "} }

type prefixed struct {
	lines  *lines
	prefix string
	rest   []byte
}

// Write writes the lines that are whole.
func (p *prefixed) Write(text []byte) (int, error) {
	p.lines.mu.Lock()
	defer p.lines.mu.Unlock()
	p.rest = append(p.rest, text...)
	for line := range bytes.Lines(bytes.Clone(p.rest)) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break
		}
		p.rest = p.rest[len(line):]
		if _, err := p.lines.out.Write(append([]byte(p.prefix), line...)); err != nil {
			return 0, err
		}
	}
	return len(text), nil
}
