package tls

import (
	"errors"
	"fmt"
)

// MaxHello is the longest hello that is read. Those of browsers, with keys that withstand
// quantum computers, have 2 KB, with tickets up to 5 KB.
const MaxHello = 16 << 10

// maxRecords is what a hello and the heads of its records may have together.
const maxRecords = 32 << 10

// maxExtensions is more than any client sends.
const maxExtensions = 100

// Kinds of records.
const (
	changeCipherSpec = 20
	alert            = 21
	handshake        = 22
	applicationData  = 23
)

const (
	major         = 3 // of every version of SSL and TLS since 1996
	recordHead    = 5
	maxRecord     = 1 << 14
	messageHead   = 4
	clientHello   = 1
	serverHello   = 2
	randomSize    = 32
	maxSessionID  = 32
	extensionName = 0
	extensionPSK  = 41
)

var (
	errNotTLS = errors.New("the client does not begin with TLS")
	errSSL2   = errors.New("the client begins with SSL 2, which cannot name a server")
	errHello  = errors.New("the client's first message is no hello of TLS")
	errBehind = errors.New("something stands behind the hello in its record")
	errEmpty  = errors.New("a record of the hello is empty")
	errLength = errors.New("the lengths in the hello do not add up")
	errLong   = fmt.Errorf("the hello is longer than %d bytes", MaxHello)
	errTwice  = errors.New("an extension is in the hello twice")
	errMany   = fmt.Errorf("the hello has more than %d extensions", maxExtensions)
	errPSK    = errors.New("the hello's pre-shared keys are not its last extension")
)

// Hello is what is read of a ClientHello.
type Hello struct {
	Version    uint16 // the highest, in the old way of saying so
	ServerName string // in lower case; empty: it names none
}

// ReadHello reads the hello that data begins with; false: it is not whole.
func ReadHello(data []byte) (h Hello, whole bool, err error) {
	var r reader
	if whole, err = r.read(data); whole {
		h, err = parse(r.message)
	}
	return h, whole, err
}

// reader puts a hello together. It is given the same bytes again with more behind them,
// and looks at each once.
type reader struct {
	at      int    // where the next record begins
	message []byte // what was in those before
}

// read says whether the hello is whole: then at is where it ends.
func (r *reader) read(data []byte) (whole bool, err error) {
	for {
		rest := data[r.at:]
		size, err := r.head(rest)
		if err != nil || len(rest) < recordHead+size || size == 0 {
			return false, err
		}
		r.message = append(r.message, rest[recordHead:recordHead+size]...)
		r.at += recordHead + size
		if len(r.message) < messageHead {
			continue
		}
		switch want := messageHead + uint24(r.message[1:]); {
		case want > messageHead+MaxHello || r.at > maxRecords:
			return false, errLong
		case len(r.message) > want:
			return false, errBehind
		case len(r.message) == want:
			return true, nil
		}
	}
}

// head checks the head of a record, and as much of its message's as there is. Size 0: it
// is not whole.
func (r *reader) head(b []byte) (size int, err error) {
	first := r.at == 0
	switch {
	case len(b) > 0 && b[0] != handshake:
		switch {
		case !first:
			return 0, errHello
		case b[0]&0x80 == 0:
			return 0, errNotTLS
		case len(b) > 2 && b[2] == clientHello:
			return 0, errSSL2
		case len(b) > 2:
			return 0, errNotTLS
		}
		return 0, nil // it is one or the other
	case len(b) > 1 && b[1] != major:
		return 0, errNotTLS
	case len(b) < recordHead:
		return 0, nil
	}
	size = uint16At(b[3:])
	switch {
	case size == 0:
		return 0, errEmpty
	case size > maxRecord:
		return 0, errLong
	case first && len(b) > recordHead && b[recordHead] != clientHello:
		return 0, errHello
	}
	return size, nil
}

// parse takes a whole message apart.
func parse(message []byte) (h Hello, err error) {
	c := cursor{rest: message[messageHead:]}
	h.Version = uint16(c.number(2))
	c.bytes(randomSize)
	if id := c.vector(1); len(id) > maxSessionID {
		return h, errLength
	}
	if suites := c.vector(2); len(suites) < 2 || len(suites)%2 != 0 {
		return h, errLength
	}
	if compressions := c.vector(1); len(compressions) == 0 {
		return h, errLength
	}
	switch {
	case c.bad:
		return h, errLength
	case h.Version>>8 != major:
		return h, errHello
	case len(c.rest) == 0: // TLS 1.2 and before it may do without extensions
		return h, nil
	}
	extensions := cursor{rest: c.vector(2)}
	if c.bad || len(c.rest) != 0 {
		return h, errLength
	}
	h.ServerName, err = extensions.serverName()
	return h, err
}

// serverName goes through the extensions.
func (c *cursor) serverName() (name string, err error) {
	var seen [maxExtensions]int
	last := -1
	for n := 0; len(c.rest) > 0; n++ {
		kind, value := c.number(2), c.vector(2)
		switch {
		case c.bad:
			return "", errLength
		case last == extensionPSK:
			return "", errPSK
		case n == maxExtensions:
			return "", errMany
		}
		for _, other := range seen[:n] {
			if other == kind {
				return "", errTwice
			}
		}
		seen[n], last = kind, kind
		if kind == extensionName {
			if name, err = readName(value); err != nil {
				return "", err
			}
		}
	}
	return name, nil
}

// cursor reads from the front. What is not there makes it bad, and reads as nothing.
type cursor struct {
	rest []byte
	bad  bool
}

func (c *cursor) bytes(n int) []byte {
	if n > len(c.rest) {
		c.rest, c.bad = nil, true
		return nil
	}
	b := c.rest[:n]
	c.rest = c.rest[n:]
	return b
}

// number reads one of n bytes.
func (c *cursor) number(n int) (v int) {
	for _, b := range c.bytes(n) {
		v = v<<8 | int(b)
	}
	return v
}

// vector reads bytes behind their length, which has n bytes.
func (c *cursor) vector(n int) []byte { return c.bytes(c.number(n)) }

func uint16At(b []byte) int { return int(b[0])<<8 | int(b[1]) }

func uint24(b []byte) int { return int(b[0])<<16 | uint16At(b[1:]) }
