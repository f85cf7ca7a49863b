package automaton

import (
	"encoding/binary"
	"fmt"
	"regexp/syntax"
)

// op is what an instruction does.
type op uint8

const (
	opFail  op = iota
	opNop      // go on at out
	opAlt      // go on at out and at arg
	opEmpty    // go on at out if the assertions cond hold
	opChar     // go on at out after a character of the set arg
	opMatch    // the expression arg matches, if the value ends here
)

// inst is an instruction. The first of a program is opFail.
type inst struct {
	op       op
	cond     uint8
	out, arg uint32
}

// edge of the trie: a part behind a node.
type edge struct {
	from    uint32
	program bool   // a program, not a single character
	id      uint32 // of the program's text, or of the character's set
}

// builder makes one program of many expressions. A node of the trie is the
// number of the instruction that enters it.
type builder struct {
	insts    []inst
	limit    int
	sets     *charSets
	nodes    map[edge]uint32
	programs map[string]uint32 // by the text of describe
	ends     map[edge]bool     // node and expression
	key      []byte
}

const root = 1

func newBuilder(limit int) *builder {
	return &builder{
		insts: make([]inst, 2), limit: limit, sets: newCharSets(),
		nodes: make(map[edge]uint32), programs: make(map[string]uint32), ends: make(map[edge]bool),
	}
}

func (b *builder) emit(i inst) uint32 {
	b.insts = append(b.insts, i)
	return uint32(len(b.insts) - 1)
}

// fork lets a node go on at one more place.
func (b *builder) fork(node, to uint32) {
	rest := uint32(0)
	if b.insts[node].op != opFail {
		rest = b.emit(b.insts[node])
	}
	b.insts[node] = inst{op: opAlt, out: to, arg: rest}
}

// add puts one alternative of the expression id into the trie.
func (b *builder) add(w way, id uint32) error {
	node := uint32(root)
	for _, part := range w {
		next, err := b.step(node, part)
		if err != nil {
			return err
		}
		node = next
	}
	if end := (edge{from: node, id: id}); !b.ends[end] {
		b.ends[end] = true
		b.fork(node, b.emit(inst{op: opMatch, arg: id}))
	}
	return b.check(0)
}

func (b *builder) check(more int) error {
	if n := len(b.insts) + more; n > b.limit {
		return fmt.Errorf("the set of expressions %w: %d instructions, of %d at most", ErrSize, n, b.limit)
	}
	return nil
}

// step is the node behind a part.
func (b *builder) step(node uint32, part *syntax.Regexp) (uint32, error) {
	e := edge{from: node}
	switch part.Op {
	case syntax.OpLiteral:
		e.id = b.sets.one(part.Rune[0], part.Flags&syntax.FoldCase != 0)
	case syntax.OpAnyChar:
		e.id = b.sets.any()
	case syntax.OpAnyCharNotNL:
		e.id = b.sets.anyNotNL()
	case syntax.OpCharClass:
		e.id = b.sets.pairs(part.Rune)
	default:
		e.program, e.id = true, b.program(part)
	}
	if next, ok := b.nodes[e]; ok {
		return next, nil
	}
	next := b.emit(inst{})
	b.nodes[e] = next
	if !e.program {
		b.fork(node, b.emit(inst{op: opChar, arg: e.id, out: next}))
		return next, b.check(0)
	}
	start, err := b.splice(part, next)
	if err != nil {
		return 0, err
	}
	b.fork(node, start)
	return next, nil
}

// splice compiles a part and leads its matches to the node out.
func (b *builder) splice(part *syntax.Regexp, out uint32) (uint32, error) {
	prog, err := syntax.Compile(part)
	if err != nil {
		return 0, err
	}
	if err := b.check(len(prog.Inst)); err != nil {
		return 0, err
	}
	base := uint32(len(b.insts))
	for i := range prog.Inst {
		in := &prog.Inst[i]
		to := inst{out: base + in.Out}
		switch in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			to.op, to.arg = opAlt, base+in.Arg
		case syntax.InstCapture, syntax.InstNop:
			to.op = opNop
		case syntax.InstEmptyWidth:
			to.op, to.cond = opEmpty, uint8(in.Arg)
		case syntax.InstMatch:
			to.op, to.out = opNop, out
		case syntax.InstFail:
			to = inst{}
		default:
			to.op, to.arg = opChar, b.setOf(in)
		}
		b.emit(to)
	}
	return base + uint32(prog.Start), nil
}

func (b *builder) setOf(in *syntax.Inst) uint32 {
	switch {
	case in.Op == syntax.InstRuneAny:
		return b.sets.any()
	case in.Op == syntax.InstRuneAnyNotNL:
		return b.sets.anyNotNL()
	case len(in.Rune) == 1:
		return b.sets.one(in.Rune[0], syntax.Flags(in.Arg)&syntax.FoldCase != 0)
	}
	return b.sets.pairs(in.Rune)
}

func (b *builder) program(part *syntax.Regexp) uint32 {
	b.key = describe(b.key[:0], part)
	id, ok := b.programs[string(b.key)]
	if !ok {
		id = uint32(len(b.programs))
		b.programs[string(b.key)] = id
	}
	return id
}

// describe writes all that decides what a tree matches: equal texts are equal
// programs.
func describe(to []byte, re *syntax.Regexp) []byte {
	put := func(n int) { to = binary.AppendVarint(to, int64(n)) }
	put(int(re.Op))
	put(int(re.Flags & syntax.FoldCase))
	if re.Op == syntax.OpRepeat {
		put(re.Min)
		put(re.Max)
	}
	put(len(re.Rune))
	for _, r := range re.Rune {
		put(int(r))
	}
	put(len(re.Sub))
	for _, sub := range re.Sub {
		to = describe(to, sub)
	}
	return to
}
