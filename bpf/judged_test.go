package bpf

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Who reads by what the gate judges sees each change, and cannot make one.
func TestJudged(t *testing.T) {
	l := newLab(t)
	take := func(f *os.File, err error) int {
		l.must(err)
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		l.must(err)
		f.Close()
		return fd
	}
	ends, err := OpenEndpoints(take(l.g.EndpointsToRead()))
	l.must(err)
	defer ends.m.Close()
	j, err := OpenJudged(ends, take(l.g.SubjectsToRead()))
	l.must(err)
	defer j.subjects.Close()
	want := func(what string, table uint32) {
		t.Helper()
		if got, err := j.NameTable(l.a.v4); err != nil || got != table {
			t.Errorf("%s: table %d, %v; want %d", what, got, err, table)
		}
	}
	l.must(l.g.SyncPolicy(subjectA, nil, everything()))
	want("without names", 0)
	l.must(l.g.SetNameTable(subjectA, 3))
	want("with a table", 3)
	l.must(l.g.SetNameTable(subjectA, 4))
	want("with another", 4)
	l.must(l.g.DeletePolicy(subjectA, everything()))
	want("without a policy table", 0)
	if got, err := j.NameTable(host4); err != nil || got != 0 {
		t.Errorf("of who is no endpoint: table %d, %v", got, err)
	}
	if err := j.subjects.Update(subjectA, gateSubject{}, ebpf.UpdateAny); err == nil {
		t.Error("the map can be written")
	}
}
