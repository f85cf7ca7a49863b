package xds

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"
)

const patience = time.Minute

func newTestBackend(t *testing.T, c Config) *Backend {
	t.Helper()
	c.Dir = t.TempDir()
	b, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return b
}

// fakeEnvoy speaks delta xDS as Envoy does: it subscribes to all clusters and
// listeners, to the routes of each listener, and listens where a listener says.
type fakeEnvoy struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	stop   func()

	// answer is asked before a response is acknowledged: what it returns is the
	// refusal. It may block.
	answer func(*discoveryv3.DeltaDiscoveryResponse) string

	mu        sync.Mutex
	have      map[resourceKey]*discoveryv3.Resource
	responses []*discoveryv3.DeltaDiscoveryResponse
	sockets   map[string][]net.Listener
}

// connectFake connects; have is what it has from a stream before.
func connectFake(t *testing.T, b *Backend, have map[resourceKey]*discoveryv3.Resource, answer func(*discoveryv3.DeltaDiscoveryResponse) string) *fakeEnvoy {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+b.file(SocketName), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeEnvoy{t: t, stream: stream, answer: answer, have: map[resourceKey]*discoveryv3.Resource{}, sockets: map[string][]net.Listener{}}
	done := make(chan struct{})
	f.stop = sync.OnceFunc(func() {
		cancel()
		conn.Close()
		<-done
		f.mu.Lock()
		defer f.mu.Unlock()
		for name := range f.sockets {
			f.unlisten(name)
		}
	})
	t.Cleanup(f.stop)
	for key, r := range have {
		f.have[key] = r
	}
	f.subscribe(resource.ClusterType)
	f.subscribe(resource.ListenerType)
	if names := f.names(resource.ListenerType); len(names) > 0 {
		f.subscribe(resource.RouteType, names...)
	}
	go func() {
		defer close(done)
		f.run()
	}()
	waitFor(t, func() bool { return b.Status().State == "ready" })
	return f
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited too long")
		}
	}
}

// subscribe is the first request of a type.
func (f *fakeEnvoy) subscribe(typeURL string, names ...string) {
	r := &discoveryv3.DeltaDiscoveryRequest{
		Node: &corev3.Node{Id: "fake", Cluster: proxyCluster, Metadata: bootstrapMark(), UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{
			UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: 40}},
		}},
		TypeUrl: typeURL, ResourceNamesSubscribe: names, InitialResourceVersions: map[string]string{},
	}
	for key, x := range f.have {
		if key.typeURL == typeURL {
			r.InitialResourceVersions[key.name] = x.GetVersion()
		}
	}
	f.send(r)
}

func (f *fakeEnvoy) send(r *discoveryv3.DeltaDiscoveryRequest) {
	if err := f.stream.Send(r); err != nil && f.stream.Context().Err() == nil {
		f.t.Errorf("send to the backend: %v", err)
	}
}

func (f *fakeEnvoy) run() {
	for {
		r, err := f.stream.Recv()
		if err != nil {
			return
		}
		f.mu.Lock()
		f.responses = append(f.responses, r)
		f.mu.Unlock()
		answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
		if message := f.refusal(r); message != "" {
			answer.ErrorDetail = &rpcstatus.Status{Message: message}
			f.send(answer)
			continue
		}
		added := f.take(r)
		f.send(answer)
		if r.GetTypeUrl() == resource.ListenerType && len(added) > 0 {
			f.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.RouteType, ResourceNamesSubscribe: added})
		}
		if names := f.wantsSecrets(r); len(names) > 0 {
			f.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.SecretType, ResourceNamesSubscribe: names})
		}
	}
}

func (f *fakeEnvoy) refusal(r *discoveryv3.DeltaDiscoveryResponse) string {
	if f.answer == nil {
		return ""
	}
	return f.answer(r)
}

func (f *fakeEnvoy) take(r *discoveryv3.DeltaDiscoveryResponse) (added []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range r.GetResources() {
		key := resourceKey{r.GetTypeUrl(), x.GetName()}
		if f.have[key] == nil {
			added = append(added, x.GetName())
		}
		f.have[key] = x
		if r.GetTypeUrl() == resource.ListenerType {
			f.listen(x)
		}
	}
	for _, name := range r.GetRemovedResources() {
		delete(f.have, resourceKey{r.GetTypeUrl(), name})
		if r.GetTypeUrl() == resource.ListenerType {
			f.unlisten(name)
		}
	}
	return added
}

func (f *fakeEnvoy) listen(x *discoveryv3.Resource) {
	var l listenerv3.Listener
	if err := x.GetResource().UnmarshalTo(&l); err != nil {
		f.t.Errorf("read listener: %v", err)
		return
	}
	if len(f.sockets[x.GetName()]) > 0 { // it stays where it is
		return
	}
	port := l.GetAddress().GetSocketAddress().GetPortValue()
	for network, addr := range map[string]string{"tcp4": loopback4, "tcp6": loopback6} {
		s, err := listen(context.Background(), network, addr, uint16(port))
		if err != nil {
			f.t.Errorf("listen as Envoy: %v", err)
			return
		}
		f.sockets[x.GetName()] = append(f.sockets[x.GetName()], s)
	}
}

func (f *fakeEnvoy) unlisten(name string) {
	for _, s := range f.sockets[name] {
		s.Close()
	}
	delete(f.sockets, name)
}

func (f *fakeEnvoy) names(typeURL string) (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key := range f.have {
		if key.typeURL == typeURL {
			names = append(names, key.name)
		}
	}
	return names
}

// get reads a resource that it has into m.
func (f *fakeEnvoy) get(typeURL, name string, m proto.Message) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	x := f.have[resourceKey{typeURL, name}]
	return x != nil && x.GetResource().UnmarshalTo(m) == nil
}

// count says how many responses of a type were received.
func (f *fakeEnvoy) count(typeURL string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.responses {
		if r.GetTypeUrl() == typeURL {
			n++
		}
	}
	return n
}
