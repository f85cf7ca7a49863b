package proxy

import (
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"
	"time"
)

// kafkaClaim is the beginning of a request that says it is as long as can be.
func kafkaClaim(key, version int16, rest ...byte) []byte {
	b := []byte{0x7f, 0xff, 0xff, 0xff}
	b = binary.BigEndian.AppendUint16(b, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	return append(append(b, 0, 0, 0, 1, 0, 1, 'c'), rest...)
}

// TestKafkaClaims has many clients claim requests of 2 GB, and counts what that costs.
func TestKafkaClaims(t *testing.T) {
	r := startKafkaAt(t, server(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }), "a")
	r.enforce(setKafka)
	before := heap()
	var all []net.Conn
	defer func() {
		for _, c := range all {
			_ = c.Close()
		}
	}()
	produce := func(topic byte) []byte {
		return kafkaClaim(0, 3, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1, topic, 0, 0, 0, 1, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0)
	}
	for range 300 {
		for _, claim := range [][]byte{produce('a'), produce('b'), kafkaClaim(3, 1, 0, 0x7f, 0xff, 0xff, 0xff)} {
			c, err := net.Dial("tcp", r.addr)
			must(t, err)
			all = append(all, c)
			_, _ = c.Write(append(claim, make([]byte, 10_000)...))
		}
	}
	eventually(t, "the 300 that cannot be read to end", func() bool { return r.status().Connections == 600 })
	if used := heap() - before; used > 64<<20 {
		t.Errorf("900 connections cost %d MB", used>>20)
	}
}

// TestGrownBuffersAreBounded has clients send most of requests that are read as a
// whole, until there is no room for more: who wants it then is closed.
func TestGrownBuffersAreBounded(t *testing.T) {
	const each = 1 << 20
	r := startProxy(t, server(t, kafkaBroker(make(chan int16, 100))), func(c *Config) { c.Limits.Grown = 5 * each })
	r.connections.set(Connection{SourceIdentity: 1000, DestinationIdentity: 2000, Egress: setKafka}, false)
	r.enforce(setKafka)
	long := make([]byte, each) // Metadata about one topic of an impossible length
	binary.BigEndian.PutUint32(long, each-4)
	copy(long[4:], kafkaClaim(3, 1)[4:])
	for range 20 {
		c, err := net.Dial("tcp", r.addr)
		must(t, err)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		_, _ = c.Write(long[:each-1000])
	}
	eventually(t, "15 of 20 to end", func() bool { s := r.status(); return s.Malformed >= 15 && s.Connections <= 5 })
	// Who sends what fits into a buffer of the usual size is served.
	c := r.dial()
	_, err := c.Write(kafkaFetch(9, 0))
	must(t, err)
	_, err = readKafka(c)
	must(t, err)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}
