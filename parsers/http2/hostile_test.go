package http2

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

const (
	short = 20 // streams and the like in tests of floods
)

// streamErrors are requests that are refused: no byte of them goes on, and others
// on the connection do.
var streamErrors = map[string]struct {
	err   *Refusal
	write func(w *wire)
}{
	"no method":             {ErrPseudo, head(":scheme=http", ":path=/", ":authority=h")},
	"no scheme":             {ErrPseudo, head(":method=GET", ":path=/", ":authority=h")},
	"no path":               {ErrPseudo, head(":method=GET", ":scheme=http", ":authority=h")},
	"no authority":          {ErrAuthority, head(":method=GET", ":scheme=http", ":path=/")},
	"empty authority":       {ErrAuthority, head(":method=GET", ":scheme=http", ":path=/", ":authority=", "host=h")},
	"method twice":          {ErrPseudo, head(":method=GET", ":method=GET", ":scheme=http", ":path=/", ":authority=h")},
	"path twice":            {ErrPseudo, head(":method=GET", ":scheme=http", ":path=/", ":path=/", ":authority=h")},
	"authority twice":       {ErrPseudo, head(":method=GET", ":scheme=http", ":path=/", ":authority=h", ":authority=h")},
	"unknown pseudo":        {ErrPseudo, head(":method=GET", ":scheme=http", ":path=/", ":authority=h", ":x=y")},
	"status in a request":   {ErrPseudo, head(":method=GET", ":scheme=http", ":path=/", ":authority=h", ":status=200")},
	"protocol":              {ErrPseudo, head(":method=CONNECT", ":protocol=websocket", ":scheme=http", ":path=/", ":authority=h")},
	"pseudo behind a field": {ErrPseudo, head(":method=GET", ":scheme=http", "a=b", ":path=/", ":authority=h")},
	"empty method":          {ErrMethod, head(":method=", ":scheme=http", ":path=/", ":authority=h")},
	"method with space":     {ErrMethod, head(":method=GET /deny HTTP/1.1", ":scheme=http", ":path=/", ":authority=h")},
	"scheme in upper case":  {ErrScheme, head(":method=GET", ":scheme=HTTP", ":path=/", ":authority=h")},
	"another scheme":        {ErrScheme, head(":method=GET", ":scheme=ftp", ":path=/", ":authority=h")},
	"smuggled scheme":       {ErrScheme, head(":method=GET", ":scheme=http://deny/?", ":path=/", ":authority=h")},
	"empty path":            {ErrPath, head(":method=GET", ":scheme=http", ":path=", ":authority=h")},
	"path without slash":    {ErrPath, head(":method=GET", ":scheme=http", ":path=deny", ":authority=h")},
	"absolute path":         {ErrPath, head(":method=GET", ":scheme=http", ":path=http://h/", ":authority=h")},
	"asterisk":              {ErrPath, head(":method=GET", ":scheme=http", ":path=*", ":authority=h")},
	"path with space":       {nil, head(":method=GET", ":scheme=http", ":path=/ HTTP/1.1", ":authority=h")},
	"path with high bytes":  {nil, head(":method=GET", ":scheme=http", ":path=/\xc3\xa9", ":authority=h")},
	"path with NUL":         {ErrFieldValue, head(":method=GET", ":scheme=http", ":path=/\x00", ":authority=h")},
	"path with CRLF":        {ErrFieldValue, head(":method=GET", ":scheme=http", ":path=/\r\nx: y", ":authority=h")},
	"escaped slash":         {nil, head(":method=GET", ":scheme=http", ":path=/a%2fb", ":authority=h")},
	"escaped NUL":           {nil, head(":method=GET", ":scheme=http", ":path=/a%00b", ":authority=h")},
	"fragment":              {nil, head(":method=GET", ":scheme=http", ":path=/a#b", ":authority=h")},
	"host differs":          {ErrAuthority, head(":method=GET", ":scheme=http", ":path=/", ":authority=h", "host=g")},
	"host twice":            {ErrAuthority, head(":method=GET", ":scheme=http", ":path=/", ":authority=h", "host=h", "host=h")},
	"hosts without it":      {ErrAuthority, head(":method=GET", ":scheme=http", ":path=/", "host=h", "host=g")},
	"userinfo":              {ErrHost, head(":method=GET", ":scheme=http", ":path=/", ":authority=u@h")},
	"path in authority":     {ErrHost, head(":method=GET", ":scheme=http", ":path=/", ":authority=h/x")},
	"upper-case name":       {ErrFieldName, get("X-Y=z")},
	"empty name":            {ErrFieldName, func(w *wire) { raw(w, "\x00\x00\x01z") }},
	"name with space":       {ErrFieldName, get("x y=z")},
	"name with colon":       {ErrFieldName, get("x:y=z")},
	"name with CRLF":        {ErrFieldName, get("x\r\ny=z")},
	"name with NUL":         {ErrFieldName, get("x\x00=z")},
	"value with CRLF":       {ErrFieldValue, get("x=y\r\ntransfer-encoding: chunked")},
	"value with NUL":        {ErrFieldValue, get("x=\x00")},
	"value with DEL":        {ErrFieldValue, get("x=\x7f")},
	"value begins in space": {ErrFieldValue, get("x= y")},
	"value ends in tab":     {ErrFieldValue, get("x=y\t")},
	"connection":            {ErrConnection, get("connection=x")},
	"keep-alive":            {ErrConnection, get("keep-alive=1")},
	"proxy-connection":      {ErrConnection, get("proxy-connection=close")},
	"transfer-encoding":     {ErrConnection, get("transfer-encoding=chunked")},
	"transfer_encoding":     {ErrConnection, get("transfer_encoding=chunked")},
	"upgrade":               {ErrConnection, get("upgrade=h2c")},
	"te":                    {ErrConnection, get("te=trailers, deflate")},
	"two lengths":           {ErrLength, get("content-length=0", "content-length=0")},
	"list of lengths":       {ErrLength, get("content-length=0, 0")},
	"signed length":         {ErrLength, get("content-length=+1")},
	"length in words":       {ErrLength, get("content-length=x")},
	"length without a body": {ErrBodyLength, get("content-length=1")},
	"another expectation":   {ErrExpect, get("expect=x")},
	"too many fields":       {ErrHeadLong, func(w *wire) { get(strings.Split(strings.Repeat("a=b ", 99)+"a=b", " ")...)(w) }},
	"depends on itself": {ErrDependency, func(w *wire) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{
			StreamID: 3, EndStream: true, EndHeaders: true, Priority: http2.PriorityParam{StreamDep: 3},
			BlockFragment: w.encode(":method=GET", ":scheme=http", ":path=/", ":authority=h"),
		})
	}},
	"CONNECT with a path":      {ErrPseudo, head(":method=CONNECT", ":scheme=http", ":path=/", ":authority=h:1")},
	"CONNECT without a port":   {ErrHost, head(":method=CONNECT", ":authority=h")},
	"CONNECT with another":     {ErrAuthority, head(":method=CONNECT", ":authority=h:1", "host=g:1")},
	"CONNECT with a length":    {ErrLength, head(":method=CONNECT", ":authority=h:1", "content-length=0")},
	"CONNECT to nowhere":       {ErrPseudo, head(":method=CONNECT")},
	"smuggled in a cookie":     {ErrFieldValue, get("cookie=a", "cookie=b\r\nx: y")},
	"obsolete folding":         {ErrFieldValue, get("x=a\r\n b")},
	"http2-settings":           {ErrConnection, get("http2-settings=AAMAAABk")},
	"underscore in the length": {ErrConnection, get("content_length=1")},
}

func head(fields ...string) func(w *wire) {
	return func(w *wire) { w.headers(3, true, fields...) }
}

func get(fields ...string) func(w *wire) {
	return func(w *wire) { w.request(3, true, "GET", "/", fields...) }
}

// raw writes a request with more behind its pseudo-header fields.
func raw(w *wire, more string) {
	block := append(w.encode(":method=GET", ":scheme=http", ":path=/", ":authority=h"), more...)
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndStream: true, EndHeaders: true, BlockFragment: block})
}

func TestRefusedStreams(t *testing.T) {
	for name, tt := range streamErrors {
		t.Run(name, func(t *testing.T) {
			c := newTalk(nil, nil)
			c.client.request(1, true, "GET", "/before")
			tt.write(c.client)
			c.client.request(5, true, "GET", "/behind")
			o := playAll(t, judge{}, Limits{}, c.flush().script...)
			up := read(o.server)
			if strings.Count(up, "HEADERS") != 2 || !strings.Contains(up, "HEADERS 5 end :method=GET :scheme=http :path=/behind") &&
				!strings.Contains(up, "HEADERS 5 end (table 0) :method=GET :scheme=http :path=/behind") {
				t.Errorf("server got\n%s", up)
			}
			down := read(o.client)
			want := "RST_STREAM 3 PROTOCOL_ERROR"
			if tt.err == nil {
				want = "HEADERS 3 :status=400"
			} else if tt.err.Status != 0 {
				want = fmt.Sprintf("HEADERS 3 :status=%d", tt.err.Status)
			}
			if !strings.Contains(down, want) {
				t.Errorf("client got\n%s", down)
			}
			if tt.err != nil && !strings.Contains(o.log, "2 client "+tt.err.Error()) || strings.Count(o.log, "redirect") != 2 {
				t.Errorf("log\n%s", o.log)
			}
		})
	}
}

// broken are what is wrong with a stream that has begun: both sides are told, and
// the server never sees the end of it.
var broken = map[string]struct {
	err   *Refusal
	write func(w *wire)
}{
	"body too long": {ErrBodyLength, func(w *wire) { _ = w.WriteData(3, false, []byte("123456")) }},
	"body too short": {ErrBodyLength, func(w *wire) {
		_ = w.WriteData(3, false, []byte("12"))
		_ = w.WriteData(3, true, []byte("34"))
	}},
	"no body":              {ErrBodyLength, func(w *wire) { _ = w.WriteData(3, true, nil) }},
	"trailers too early":   {ErrBodyLength, func(w *wire) { w.headers(3, true, "t=1") }},
	"trailers do not end":  {ErrTrailer, func(w *wire) { w.headers(3, false, "t=1") }},
	"pseudo in trailers":   {ErrTrailer, func(w *wire) { w.headers(3, true, ":path=/deny") }},
	"a head as trailers":   {ErrTrailer, func(w *wire) { w.request(3, true, "GET", "/deny") }},
	"length in trailers":   {ErrTrailer, func(w *wire) { w.headers(3, true, "content-length=5") }},
	"host in trailers":     {ErrTrailer, func(w *wire) { w.headers(3, true, "host=x") }},
	"coding in trailers":   {ErrTrailer, func(w *wire) { w.headers(3, true, "transfer-encoding=chunked") }},
	"upper case there":     {ErrTrailer, func(w *wire) { w.headers(3, true, "T=1") }},
	"CRLF in trailers":     {ErrFieldValue, func(w *wire) { w.headers(3, true, "t=\r\n") }},
	"update of nothing":    {ErrIncrement, func(w *wire) { _ = w.WriteWindowUpdate(3, 0) }},
	"priority on itself":   {ErrDependency, func(w *wire) { _ = w.WritePriority(3, http2.PriorityParam{StreamDep: 3}) }},
	"priority of 4 bytes":  {ErrPriority, func(w *wire) { _ = w.WriteRawFrame(http2.FramePriority, 0, 3, make([]byte, 4)) }},
	"padding only, behind": {ErrBodyLength, func(w *wire) { _ = w.WriteDataPadded(3, true, nil, make([]byte, 5)) }},
}

func TestBrokenStreams(t *testing.T) {
	for name, tt := range broken {
		t.Run(name, func(t *testing.T) {
			c := newTalk(nil, nil)
			c.client.request(3, false, "POST", "/a", "content-length=5")
			c.flush()
			tt.write(c.client)
			c.client.request(5, true, "GET", "/behind")
			c.flush()
			c.server.headers(3, false, okHead) // it does not know yet
			_ = c.server.WriteData(3, true, []byte("late"))
			c.server.headers(5, true, okHead)
			o := playAll(t, judge{}, Limits{}, c.flush().script...)
			up, down := read(o.server), read(o.client)
			if !strings.Contains(up, "RST_STREAM 3 CANCEL") || strings.Contains(up, "3 end") || !strings.Contains(up, "WINDOW_UPDATE 0 4") {
				t.Errorf("server got\n%s", up)
			}
			if !strings.Contains(down, "RST_STREAM 3 "+tt.err.Code.String()) || strings.Contains(down, "late") || !strings.Contains(down, "HEADERS 5 end") {
				t.Errorf("client got\n%s", down)
			}
			if !strings.Contains(o.log, "1 client "+tt.err.Error()) {
				t.Errorf("log\n%s", o.log)
			}
		})
	}
}

// TestMisfits wants nothing of a request to go on whose body is there, and not as long as
// its head says.
func TestMisfits(t *testing.T) {
	for name, tt := range broken {
		if tt.err != ErrBodyLength {
			continue
		}
		t.Run(name, func(t *testing.T) {
			c := newTalk(nil, nil)
			c.client.request(3, false, "POST", "/a", "content-length=5")
			_ = c.client.WritePing(false, [8]byte{1})
			tt.write(c.client)
			c.client.request(5, true, "GET", "/behind")
			o := play(parsertest.Whole, judge{}, Limits{}, c.flush().script)
			if up := read(o.server); strings.Contains(up, " 3") || !strings.Contains(up, "HEADERS 5 end") {
				t.Errorf("server got\n%s", up)
			}
			if down := read(o.client); !strings.Contains(down, "RST_STREAM 3 PROTOCOL_ERROR") {
				t.Errorf("client got\n%s", down)
			}
			if !strings.Contains(o.log, "1 client "+tt.err.Error()) || strings.Contains(o.log, "POST") {
				t.Errorf("log\n%s", o.log)
			}
		})
	}
}

// connectionErrors end the connection.
var connectionErrors = map[string]struct {
	err   *Refusal
	write func(w *wire)
}{
	"DATA on no stream":           {ErrStreamID, func(w *wire) { _ = w.WriteData(0, true, nil) }},
	"DATA on an idle stream":      {ErrStreamIdle, func(w *wire) { _ = w.WriteData(9, true, nil) }},
	"HEADERS on no stream":        {ErrStreamID, func(w *wire) { w.request(0, true, "GET", "/") }},
	"HEADERS on an even stream":   {ErrStreamID, func(w *wire) { w.request(2, true, "GET", "/") }},
	"HEADERS on a lower stream":   {ErrStreamClosed, func(w *wire) { w.request(9, true, "GET", "/"); w.request(7, true, "GET", "/") }},
	"CONTINUATION alone":          {ErrContinuation, func(w *wire) { _ = w.WriteContinuation(1, true, nil) }},
	"CONTINUATION of another":     {ErrContinuation, func(w *wire) { begun(w); _ = w.WriteContinuation(5, true, nil) }},
	"DATA within a block":         {ErrContinuation, func(w *wire) { begun(w); _ = w.WriteData(3, true, nil) }},
	"PING within a block":         {ErrContinuation, func(w *wire) { begun(w); _ = w.WritePing(false, [8]byte{}) }},
	"extension within a block":    {ErrContinuation, func(w *wire) { begun(w); _ = w.WriteRawFrame(0xbe, 0, 3, nil) }},
	"HEADERS within a block":      {ErrContinuation, func(w *wire) { begun(w); w.request(5, true, "GET", "/deny") }},
	"PUSH_PROMISE":                {ErrPush, func(w *wire) { _ = w.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2}) }},
	"PING of 7 bytes":             {ErrFrameSize, func(w *wire) { _ = w.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }},
	"PING on a stream":            {ErrStreamID, func(w *wire) { _ = w.WriteRawFrame(http2.FramePing, 0, 1, make([]byte, 8)) }},
	"RST_STREAM on no stream":     {ErrStreamID, func(w *wire) { _ = w.WriteRSTStream(0, 0) }},
	"RST_STREAM on an idle one":   {ErrStreamIdle, func(w *wire) { _ = w.WriteRSTStream(9, 0) }},
	"RST_STREAM of 5 bytes":       {ErrFrameSize, func(w *wire) { _ = w.WriteRawFrame(http2.FrameRSTStream, 0, 1, make([]byte, 5)) }},
	"WINDOW_UPDATE on an idle":    {ErrStreamIdle, func(w *wire) { _ = w.WriteWindowUpdate(9, 1) }},
	"WINDOW_UPDATE of nothing":    {ErrIncrement, func(w *wire) { _ = w.WriteWindowUpdate(0, 0) }},
	"WINDOW_UPDATE too large":     {ErrWindow, func(w *wire) { _ = w.WriteWindowUpdate(0, 1<<31-1) }},
	"WINDOW_UPDATE of 3 bytes":    {ErrFrameSize, func(w *wire) { _ = w.WriteRawFrame(http2.FrameWindowUpdate, 0, 0, make([]byte, 3)) }},
	"GOAWAY on a stream":          {ErrStreamID, func(w *wire) { _ = w.WriteRawFrame(http2.FrameGoAway, 0, 1, make([]byte, 8)) }},
	"GOAWAY of 7 bytes":           {ErrFrameSize, func(w *wire) { _ = w.WriteRawFrame(http2.FrameGoAway, 0, 0, make([]byte, 7)) }},
	"SETTINGS on a stream":        {ErrStreamID, func(w *wire) { _ = w.WriteRawFrame(http2.FrameSettings, 0, 1, nil) }},
	"SETTINGS of 5 bytes":         {ErrFrameSize, func(w *wire) { _ = w.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }},
	"acknowledged with a payload": {ErrFrameSize, func(w *wire) { _ = w.WriteRawFrame(http2.FrameSettings, 1, 0, make([]byte, 6)) }},
	"acknowledged twice":          {ErrAcknowledged, func(w *wire) { _ = w.WriteSettingsAck() }},
	"too many settings":           {ErrFlood, func(w *wire) { _ = w.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 6*65)) }},
	"push neither on nor off":     {ErrSettings, setting(http2.SettingEnablePush, 2)},
	"initial window too large":    {ErrWindow, setting(http2.SettingInitialWindowSize, 1<<31)},
	"frame size too small":        {ErrSettings, setting(http2.SettingMaxFrameSize, 16383)},
	"frame size too large":        {ErrSettings, setting(http2.SettingMaxFrameSize, 1<<24)},
	"a long frame":                {ErrFrameLong, func(w *wire) { _ = w.WriteData(1, true, make([]byte, 16385)) }},
	"padding longer than DATA":    {ErrPadding, func(w *wire) { _ = w.WriteRawFrame(http2.FrameData, 8, 1, []byte{1}) }},
	"padded DATA without any":     {ErrFrameSize, func(w *wire) { _ = w.WriteRawFrame(http2.FrameData, 8, 1, nil) }},
	"padding longer than HEADERS": {ErrPadding, func(w *wire) { _ = w.WriteRawFrame(http2.FrameHeaders, 0xc, 3, []byte{9, 0x82}) }},
	"no room for the priority":    {ErrPadding, func(w *wire) { _ = w.WriteRawFrame(http2.FrameHeaders, 0x24, 3, []byte{0, 0, 0, 0}) }},
	"index 0":                     {ErrCompression, func(w *wire) { raw(w, "\x80") }},
	"index beyond the table":      {ErrCompression, func(w *wire) { raw(w, "\xff\x7f") }},
	"endless integer":             {ErrCompression, func(w *wire) { raw(w, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff") }},
	"bad Huffman code":            {ErrCompression, func(w *wire) { raw(w, "\x00\x81\xff\x01z") }},
	"a cut block":                 {ErrCompression, func(w *wire) { raw(w, "\x00\x05ab") }},
	"a table too large": {ErrCompression, func(w *wire) {
		_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndHeaders: true, BlockFragment: []byte{0x3f, 0xe2, 0x1f}})
	}},
	"table update in the middle": {ErrCompression, func(w *wire) { raw(w, "\x20") }},
}

func begun(w *wire) {
	_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: w.encode(":method=GET")})
}

func setting(id http2.SettingID, v uint32) func(w *wire) {
	return func(w *wire) { _ = w.WriteSettings(http2.Setting{ID: id, Val: v}) }
}

func TestRefusedConnections(t *testing.T) {
	for name, tt := range connectionErrors {
		t.Run(name, func(t *testing.T) {
			c := newTalk(nil, nil)
			c.client.request(1, false, "POST", "/before")
			tt.write(c.client)
			c.client.request(11, true, "GET", "/behind")
			o := playAll(t, judge{}, Limits{}, c.flush().script...)
			if down := read(o.client); !strings.Contains(down, "GOAWAY 0 ") || !strings.HasSuffix(down, tt.err.Code.String()) {
				t.Errorf("client got\n%s", down)
			}
			if up := read(o.server); strings.Contains(up, "behind") || strings.Contains(up, "deny") {
				t.Errorf("server got\n%s", up)
			}
			if o.relay.Err != error(tt.err) || !o.relay.Closed || !strings.Contains(o.log, "client "+tt.err.Error()) {
				t.Errorf("%v, log\n%s", o.relay.Err, o.log)
			}
		})
	}
}

// TestFloods wants what costs others more than its sender to end the connection,
// or not to reach the server.
func TestFloods(t *testing.T) {
	limits := Limits{Resets: short, Noise: 20 * short, Unanswered: short, Streams: short, Continuations: 4}
	n := uint32(1)
	next := func() uint32 { n += 2; return n }
	for name, tt := range map[string]struct {
		err   *Refusal
		write func(t *talk)
	}{
		"rapid reset": {ErrResets, func(t *talk) {
			id := next()
			t.client.request(id, true, "GET", "/")
			_ = t.client.WriteRSTStream(id, http2.ErrCodeCancel)
		}},
		"made to reset": {ErrResets, func(t *talk) {
			id := next()
			t.client.request(id, true, "GET", "/")
			_ = t.client.WriteWindowUpdate(id, 0)
		}},
		"malformed requests": {ErrResets, func(t *talk) { t.client.headers(next(), true, "a=b") }},
		"PING":               {ErrFlood, func(t *talk) { _ = t.client.WritePing(false, [8]byte{}) }},
		"SETTINGS":           {ErrFlood, func(t *talk) { _ = t.client.WriteSettings() }},
		"PRIORITY":           {ErrFlood, func(t *talk) { _ = t.client.WritePriority(99, http2.PriorityParam{}) }},
		"extensions":         {ErrFlood, func(t *talk) { _ = t.client.WriteRawFrame(0xbe, 0, 0, nil) }},
		"empty DATA":         {ErrFlood, func(t *talk) { _ = t.client.WriteData(1, false, nil) }},
		"padding alone":      {ErrFlood, func(t *talk) { _ = t.client.WriteDataPadded(1, false, nil, make([]byte, 9)) }},
		"WINDOW_UPDATE":      {ErrFlood, func(t *talk) { _ = t.client.WriteWindowUpdate(1, 1) }},
		"of the connection":  {ErrFlood, func(t *talk) { _ = t.client.WriteWindowUpdate(0, 1) }},
		"empty CONTINUATION": {ErrBlockLong, func(t *talk) {
			_ = t.client.WriteHeaders(http2.HeadersFrameParam{StreamID: next()})
			for range 5 {
				_ = t.client.WriteContinuation(n, false, nil)
			}
		}},
		"long CONTINUATION": {ErrBlockLong, func(t *talk) {
			block := make([]byte, 16384)
			_ = t.client.WriteHeaders(http2.HeadersFrameParam{StreamID: next(), BlockFragment: block})
			for range 4 {
				_ = t.client.WriteContinuation(n, false, block)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTalk(nil, nil)
			c.client.request(1, false, "POST", "/before")
			n = 1
			for range 25 * short {
				tt.write(c)
			}
			o := playAll(t, judge{}, limits, c.flush().script...)
			if o.relay.Err != error(tt.err) || !o.relay.Closed {
				t.Errorf("%v %v", o.relay.Err, o.state)
			}
			if down := read(o.client); !strings.HasSuffix(down, "ENHANCE_YOUR_CALM") {
				t.Errorf("client got\n%.2000s", down)
			}
		})
	}
}

// TestTooManyStreams: what is over the limit is refused, and may be tried again.
func TestTooManyStreams(t *testing.T) {
	c := newTalk(nil, nil)
	for id := range uint32(4) {
		c.client.request(2*id+1, true, "GET", "/a")
	}
	c.flush()
	c.server.headers(1, true, okHead)
	c.flush()
	c.client.request(9, true, "GET", "/a")
	o := playAll(t, judge{}, Limits{Streams: 3}, c.flush().script...)
	if down := read(o.client); !strings.Contains(down, "RST_STREAM 7 REFUSED_STREAM") {
		t.Errorf("client got\n%s", down)
	}
	if up := read(o.server); strings.Count(up, "HEADERS") != 4 || strings.Contains(up, "HEADERS 7") || !strings.Contains(up, "HEADERS 9") {
		t.Errorf("server got\n%s", up)
	}
}

// TestBomb sends much by little: one large entry of the table, many times.
func TestBomb(t *testing.T) {
	c := newTalk(nil, nil)
	c.client.request(1, true, "GET", "/a", "x="+strings.Repeat("{", 3900))
	block := append(c.client.encode(":method=GET", ":scheme=http", ":path=/b", ":authority=h"), strings.Repeat("\xbf", 15000)...)
	_ = c.client.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, EndStream: true, EndHeaders: true, BlockFragment: block})
	c.client.request(5, true, "GET", "/c")
	o := playAll(t, judge{}, Limits{}, c.flush().script...)
	if down := read(o.client); !strings.Contains(down, "HEADERS 3 :status=431") {
		t.Errorf("client got\n%s", down)
	}
	if up := read(o.server); strings.Contains(up, ":path=/b") || !strings.Contains(up, ":path=/c") {
		t.Errorf("server got\n%s", up)
	}
	if n := cap(o.session.sides[parsers.Client].fields.text); n > 1<<20 {
		t.Errorf("%d bytes were decoded", n)
	}
}

// TestBadServers: a server that breaks the rules ends the connection.
func TestBadServers(t *testing.T) {
	for name, tt := range map[string]struct {
		err   *Refusal
		write func(w *wire)
	}{
		"HTTP/1":                    {ErrPreface, nil},
		"an answer to nothing":      {ErrUnsolicited, func(w *wire) { w.headers(9, true, okHead) }},
		"an answer to a denied one": {ErrUnsolicited, func(w *wire) { w.headers(5, true, okHead) }},
		"DATA to nothing":           {ErrUnsolicited, func(w *wire) { _ = w.WriteData(9, true, nil) }},
		"a push":                    {ErrPush, func(w *wire) { _ = w.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2}) }},
		"an even stream":            {ErrUnsolicited, func(w *wire) { w.headers(2, true, okHead) }},
		"a window overrun": {ErrWindow, func(w *wire) {
			for range 5 {
				_ = w.WriteData(1, false, make([]byte, 16384))
			}
		}},
		"a block that is none": {ErrCompression, func(w *wire) {
			_ = w.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: []byte{0x80}})
		}},
		"a cut frame": {ErrTruncated, func(w *wire) { _, _ = w.WriteString("\x00\x00\x08\x06" + fin) }},
	} {
		t.Run(name, func(t *testing.T) {
			c := newTalk(nil, nil)
			c.client.request(1, true, "GET", "/a")
			c.client.request(5, true, "GET", "/deny")
			c.flush()
			if tt.write == nil {
				c = &talk{client: newWire(), server: newWire()}
				_, _ = c.client.WriteString(Preface)
				_ = c.client.WriteSettings()
				c.client.request(1, true, "GET", "/deny")
				c.flush()
				_, _ = c.server.WriteString("HTTP/1.1 400 Bad Request\r\n\r\n")
			} else {
				tt.write(c.server)
			}
			c.flush()
			last := &c.script[len(c.script)-1]
			if data, cut := strings.CutSuffix(last.data, fin); cut {
				last.data = data
				c.script = append(c.script, v(fin))
			}
			o := playAll(t, judge{}, Limits{}, c.script...)
			down := read(o.client)
			want, code := tt.err, "INTERNAL_ERROR"
			if tt.write == nil {
				want, code = ErrServerOther, "NO_ERROR"
			}
			if o.relay.Err != error(want) || !strings.HasPrefix(down, "SETTINGS") || !strings.HasSuffix(down, code) {
				t.Errorf("%v, client got\n%s", o.relay.Err, down)
			}
			if !strings.Contains(o.log, "server "+tt.err.Error()) {
				t.Errorf("log\n%s", o.log)
			}
		})
	}
}

// TestPass: where nothing is enforced, what cannot be read goes on.
func TestPass(t *testing.T) {
	for name, tt := range broken {
		if tt.err == ErrPriority || tt.err == ErrIncrement {
			continue // goes on too, but the reader of this test stops there
		}
		c := newTalk(nil, nil)
		c.client.request(3, false, "POST", "/a", "content-length=5")
		c.flush()
		tt.write(c.client)
		c.client.request(5, true, "GET", "/behind")
		c.flush()
		c.server.headers(5, true, okHead)
		o := playAll(t, judge{pass: true}, Limits{}, c.flush().script...)
		if up := read(o.server); !strings.Contains(up, "behind") || strings.Contains(up, "RST") || o.relay.Err != nil {
			t.Errorf("%s: server got\n%s", name, up)
		}
		if down := read(o.client); !strings.Contains(down, "HEADERS 5 end") || strings.Contains(down, "RST") {
			t.Errorf("%s: client got\n%s", name, down)
		}
	}
}

func TestRecheck(t *testing.T) {
	c := newTalk(nil, nil)
	c.call(1, "/a.Svc/M")
	c.client.request(3, false, "POST", "/b", "x=y", "cookie=c")
	c.client.request(5, true, "GET", "/c")
	o := playAll(t, judge{}, Limits{}, c.flush().script...)
	var asked []string
	steps := o.session.Recheck(func(id uint64, r policy.Request) bool {
		h := r.(*policy.HTTPRequest)
		asked = append(asked, fmt.Sprintf("%d %s %s %s %d", id, h.Method, h.Path, h.Host, len(h.Headers)))
		return string(h.Path) == "/b"
	})
	sort.Strings(asked)
	if got := strings.Join(asked, "|"); got != "1 POST /a.Svc/M h 2|2 POST /b h 2|3 GET /c h 0" {
		t.Error(got)
	}
	out := [2]string{}
	for _, s := range steps {
		out[s.To] += string(s.Data)
	}
	for side, want := range []string{"RST_STREAM 1 CANCEL|RST_STREAM 5 CANCEL", "RST_STREAM 1 CANCEL|RST_STREAM 5 CANCEL"} {
		lines := strings.Split(read(out[side]), "\n")
		sort.Strings(lines)
		if got := strings.Join(lines, "|"); got != want {
			t.Errorf("side %d got %s", side, got)
		}
	}
	// What the server still sends of them is dropped, and credited.
	c.server.headers(1, false, okHead, "x=new")
	_ = c.server.WriteData(1, false, []byte("late"))
	c.server.headers(3, true, okHead, "x=new")
	got := [2]string{}
	steps, err := o.session.Feed(parsers.Server, []byte(c.server.take()), false)
	for _, s := range steps {
		if s.Op == parsers.Send {
			got[s.To] += string(s.Data)
		} else if s.Op == parsers.Forward {
			t.Error("forwarded")
		}
	}
	if err != nil || read(got[0]) != "HEADERS 3 end (table 0) :status=200 x=new" || read(got[1]) != "WINDOW_UPDATE 0 4" {
		t.Error(err, read(got[0]), read(got[1]))
	}
	// A request that could not be kept is one that is not allowed any more.
	o = playAll(t, judge{}, Limits{Kept: 1}, c.script...)
	if steps := o.session.Recheck(func(uint64, policy.Request) bool { return true }); len(steps) != 6 {
		t.Error(steps)
	}
}

// TestLongDeniedBody: it is taken for a while, then its client is told to stop.
func TestLongDeniedBody(t *testing.T) {
	c := newTalk(nil, nil)
	c.client.request(1, false, "POST", "/deny")
	for range 4 {
		_ = c.client.WriteData(1, false, make([]byte, 1000))
	}
	c.client.request(3, true, "GET", "/a")
	o := playAll(t, judge{}, Limits{Denied: 2500}, c.flush().script...)
	down := read(o.client)
	if strings.Count(down, "WINDOW_UPDATE 0 1000") != 4 || strings.Count(down, "WINDOW_UPDATE 1 1000") != 2 || strings.Count(down, "RST_STREAM 1 NO_ERROR") != 1 {
		t.Errorf("client got\n%s", down)
	}
	if up := read(o.server); strings.Contains(up, "DATA") || !strings.Contains(up, "HEADERS 3") {
		t.Errorf("server got\n%s", up)
	}
}

func TestUnavailable(t *testing.T) {
	c := &talk{client: newWire(), server: newWire()}
	_, _ = c.client.WriteString(Preface)
	_ = c.client.WriteSettings()
	o := playAll(t, judge{}, Limits{}, c.flush().script...)
	c.client.request(1, true, "GET", "/a")
	c.client.request(3, true, "GET", "/deny")
	got := read(string(o.session.Unavailable([]byte(c.client.take()))))
	want := `SETTINGS 0
HEADERS 3 :status=403 content-type=text/plain content-length=15
DATA 3 end 15 "Access denied\r\n"
HEADERS 1 :status=502 content-type=text/plain content-length=28
DATA 1 end 28 "Upstream connection failed\r\n"
GOAWAY 0 3 NO_ERROR`
	if got != want {
		t.Error(got)
	}
}
