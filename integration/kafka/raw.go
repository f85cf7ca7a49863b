package main

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// raws says what no library says.
type raws struct{ settings }

func (r raws) do(ctx context.Context, operation string) error {
	c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", r.settings["broker"])
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(15 * time.Second))
	switch operation {
	case "saslv0":
		b := []byte{0, 0, 0, 0, 0, 17, 0, 0, 0, 0, 0, 1, 0, 1, 'c', 0, 5, 'P', 'L', 'A', 'I', 'N'}
		binary.BigEndian.PutUint32(b, uint32(len(b)-4))
		if _, err = c.Write(b); err == nil {
			_, err = io.ReadFull(c, b[:1])
		}
	case "tls":
		err = tls.Client(c, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx)
	default:
		return unknown(operation)
	}
	var timeout net.Error
	switch {
	case err == nil:
		return errors.New("it was answered")
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("it was neither answered nor closed: %w", err)
	}
	fmt.Println("closed")
	return nil
}
