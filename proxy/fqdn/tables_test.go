package fqdn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// withTable is a snapshot whose endpoints have a table of another number.
func withTable(table uint32, rules ...policy.Rule) *redirect.Names {
	n := twoEndpoints(rules...)
	n.Tables = map[uint32]*policy.NameTable{table: n.Tables[1]}
	for i := range n.Endpoints {
		n.Endpoints[i].Table = table
	}
	return n
}

// tell puts a snapshot in force by an agent that dies before it tells the gate.
func (b *bench) tell(n *redirect.Names) {
	b.Helper()
	if err := b.Update(context.Background(), n); err != nil {
		b.Fatal(err)
	}
}

// tablesOf are those of an endpoint, when the janitor has been there.
func (b *bench) tablesOf(id uint16) (tables []uint32) {
	b.clean()
	_ = b.do(context.Background(), func() { tables = slices.Clone(b.hosts[id].tables) })
	return tables
}

func (b *bench) wantTables(what string, want ...uint32) {
	b.Helper()
	for id := range uint16(2) {
		if got := b.tablesOf(id + 1); !slices.Equal(got, want) {
			b.Errorf("%s endpoint %d has tables %v, want %v", what, id+1, got, want)
		}
	}
	known := map[uint32]bool{}
	for k := range b.k.rules {
		known[k.Table] = true
	}
	for _, t := range want {
		if !known[t] {
			b.Errorf("%s the kernel has no rules of table %d", what, t)
		}
		delete(known, t)
	}
	if len(known) > 0 {
		b.Errorf("%s the kernel has rules of the tables %v, too", what, known)
	}
}

// refresh has the endpoints ask again, for nothing runs out that is asked for.
func (b *bench) refresh() {
	b.Helper()
	for client := range 2 {
		b.learns(fmt.Sprintf("10.0.0.%d", client+1), "a.example.com", "192.0.2.1")
		b.learns(fmt.Sprintf("10.0.0.%d", client+1), "a.example.org", "192.0.2.4")
	}
}

// An agent that dies when the proxy has its tables and the gate has not leaves the gate with
// those of before. They stay in force, for what is learnt later too, however long no agent
// comes, and however many die likewise.
func TestAgentDiesBeforeTheGateIsTold(t *testing.T) {
	b := newBench(t)
	b.update(withTable(1, rule(0, "*.example.com")))
	b.refresh()
	b.tell(withTable(2, rule(0, "*.example.org")))
	for range 3 {
		b.time.add(time.Minute)
		b.refresh()
		b.wantTables("while the gate goes by the first,", 2, 1)
		b.verdict("known before", 1, "192.0.2.1", 80, "allow")
	}
	b.learns("10.0.0.2", "b.example.com", "192.0.2.2")
	b.verdict("learnt later", 2, "192.0.2.2", 80, "allow")
	b.learns("10.0.0.2", "b.example.org", "192.0.2.3")
	b.verdict("of the rules that the gate does not have", 2, "192.0.2.3", 80, "nothing")

	b.tell(withTable(3, rule(0, "**.example.com")))
	b.tell(withTable(4, rule(0, "**")))
	b.time.add(time.Minute)
	b.refresh()
	b.wantTables("after two more,", 4, 1)
	b.verdict("known before", 1, "192.0.2.1", 80, "allow")

	b.update(withTable(4, rule(0, "**")))
	b.time.add(time.Minute)
	b.refresh()
	b.wantTables("when the gate has been told,", 4)
}

// A table that the gate has left stays for those packets that are judged by it; one whose
// endpoint cannot be asked for stays.
func TestTablesThatTheGateHasLeft(t *testing.T) {
	b := newBench(t)
	b.update(withTable(1, rule(0, "*.example.com")))
	b.refresh()
	b.update(withTable(2, rule(0, "**.example.com")))
	b.refresh()
	b.wantTables("at once,", 2, 1)
	b.time.add(tableStays - time.Second)
	b.refresh()
	b.wantTables("a moment later,", 2, 1)
	b.k.set(func() { b.k.gateFails = errors.New("it does not answer") })
	b.time.add(time.Minute)
	b.refresh()
	b.wantTables("when the gate does not say,", 2, 1)
	b.k.set(func() { b.k.gateFails = nil })
	b.wantTables("when it does,", 2)
}

// The addresses of one endpoint change their tables one after the other.
func TestAddressesOfDifferentTables(t *testing.T) {
	b := newBench(t)
	b.update(withTable(1, rule(0, "*.example.com")))
	b.refresh()
	next := withTable(2, rule(0, "**.example.com"))
	b.tell(next)
	b.k.set(func() { b.k.gate[netip.MustParseAddr("10.0.0.1")], b.k.gate[netip.MustParseAddr("10.0.0.2")] = 2, 2 })
	b.time.add(time.Minute)
	b.refresh()
	if got := b.tablesOf(1); !slices.Equal(got, []uint32{2, 1}) {
		t.Errorf("tables %v of who has an address with the one before", got)
	}
	if got := b.tablesOf(2); !slices.Equal(got, []uint32{2}) {
		t.Errorf("tables %v of the other", got)
	}
	b.update(next)
	b.time.add(time.Minute)
	b.refresh()
	b.wantTables("in the end", 2)
}

// The tables of before stay while a change is under way, and for a while after it.
func TestOldTablesDuringUpdate(t *testing.T) {
	b := newBench(t)
	b.update(withTable(1, rule(0, "*.example.com")))
	count := func() int { return len(b.tablesOf(1)) }
	_ = b.do(context.Background(), func() {
		start := b.now()
		b.updating = true
		b.setTable(b.hosts[1], 2)
		b.k.set(func() { clear(b.k.gate) })
		b.time.add(time.Hour)
		b.dropOldTables()
		if got := len(b.hosts[1].tables); got != 2 {
			t.Errorf("while a change is under way an endpoint has %d tables, want both", got)
		}
		b.updated(start)
	})
	if got := count(); got != 2 {
		t.Errorf("as it ends an endpoint has %d tables, want both", got)
	}
	b.time.add(tableStays + time.Second)
	if got := count(); got != 1 {
		t.Errorf("later an endpoint has %d tables, want one", got)
	}
}

// What a table lacks that was not to be in force any more is asked for when it is again.
func TestMissingSetOfATableThatComesBack(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(httpRule(0, "/a", "a.example.com"), httpRule(1, "/b", "*.example.com"))
	b.update(n)
	b.tell(withTable(2, rule(0, "*.example.net")))
	told := make(chan error, 1)
	b.Learn(b.answer("10.0.0.1", "a.example.com", "192.0.2.1"), func(err error) { told <- err })
	if err := <-told; err != nil {
		t.Errorf("by a table that is to go: %v", err)
	}
	b.update(n)
	b.Learn(b.answer("10.0.0.1", "a.example.com", "192.0.2.1"), func(err error) { told <- err })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	missing, err := b.Missing(ctx)
	if err != nil || len(missing) == 0 || missing[0].Table != 1 || len(missing[0].Picked) != 2 {
		t.Errorf("missing %+v, %v", missing, err)
	}
	select {
	case err := <-told:
		t.Errorf("done without its set: %v", err)
	default:
	}
}
