package weights

import (
	"errors"
	"fmt"
	"slices"
)

// A pickle is a program for a stack machine that builds Python values. This file runs the part of the language in which
// state dicts are written: plain values, containers, references to what was built before. The instructions that name a
// Python class or function are given to resolve and construct, which know the few constructors of a state dict and
// refuse everything else: nothing from the file is ever executed.

// Limits of a pickle. What the machine allocates is bounded by them and by the length of the file.
const (
	minProtocol = 2
	maxProtocol = 5
	maxPickle   = 64 << 20  // bytes
	maxSteps    = 4_000_000 // instructions; a tensor takes about 30
	maxName     = 256       // bytes of a module or class name
	maxInteger  = 255       // bytes of an integer
)

// Instructions of the machine.
const (
	opMark           = '('
	opStop           = '.'
	opNone           = 'N'
	opNewTrue        = 0x88
	opNewFalse       = 0x89
	opBinInt         = 'J'
	opBinInt1        = 'K'
	opBinInt2        = 'M'
	opLong1          = 0x8a
	opLong4          = 0x8b
	opBinFloat       = 'G'
	opBinUnicode     = 'X'
	opShortUnicode   = 0x8c
	opBinUnicode8    = 0x8d
	opBinString      = 'T'
	opShortBinString = 'U'
	opBinBytes       = 'B'
	opShortBinBytes  = 'C'
	opBinBytes8      = 0x8e
	opByteArray8     = 0x96
	opEmptyList      = ']'
	opAppend         = 'a'
	opAppends        = 'e'
	opList           = 'l'
	opEmptyTuple     = ')'
	opTuple          = 't'
	opTuple1         = 0x85
	opTuple2         = 0x86
	opTuple3         = 0x87
	opEmptyDict      = '}'
	opDict           = 'd'
	opSetItem        = 's'
	opSetItems       = 'u'
	opEmptySet       = 0x8f
	opAddItems       = 0x90
	opFrozenSet      = 0x91
	opBinGet         = 'h'
	opLongBinGet     = 'j'
	opBinPut         = 'q'
	opLongBinPut     = 'r'
	opMemoize        = 0x94
	opGlobal         = 'c'
	opStackGlobal    = 0x93
	opReduce         = 'R'
	opNewObj         = 0x81
	opBuild          = 'b'
	opBinPersID      = 'Q'
	opProto          = 0x80
	opFrame          = 0x95
)

// sequence is a Python list, tuple or set while it may still grow; settle makes it plain.
type sequence struct {
	items []any
	tuple bool
}

// machine runs one pickle.
type machine struct {
	in     *pickleReader
	begin  int // where the pickle starts in the input
	stack  []any
	marks  []int // heights of the stack
	memo   map[uint32]any
	copied int // what constructors may have copied

	// persistent turns the id of a storage into a storage.
	persistent func(id []any) (any, error)
}

// unpickle runs the pickle that in stands at, up to and including its end, and returns the plain value it builds.
// Errors say at which byte of the input.
func unpickle(in *pickleReader, persistent func(id []any) (any, error)) (any, error) {
	m := &machine{in: in, begin: in.at, memo: map[uint32]any{}, persistent: persistent}
	in.limit = min(in.end, in.at+maxPickle)
	if err := m.header(); err != nil {
		return nil, err
	}
	for range maxSteps {
		at := in.at
		op, err := in.byte()
		if err == nil && op == opStop {
			return m.result(in.at - m.begin)
		}
		if err == nil {
			err = m.step(op)
		}
		if err != nil {
			return nil, fmt.Errorf("at byte %d: %w", at, err)
		}
	}
	return nil, fmt.Errorf("has more than %d instructions, more than a checkpoint of weights needs", maxSteps)
}

// header reads the protocol that every pickle from protocol 2 on starts with.
func (m *machine) header() error {
	head, err := m.in.take(2)
	if err != nil {
		return err
	}
	if head[0] != opProto || head[1] < minProtocol || head[1] > maxProtocol {
		return fmt.Errorf("not a pickle of protocol %d to %d", minProtocol, maxProtocol)
	}
	return nil
}

// result ends a pickle of n bytes.
func (m *machine) result(n int) (any, error) {
	if len(m.stack) != 1 || len(m.marks) != 0 {
		return nil, fmt.Errorf("ends with %d values on the stack and %d open marks, expected one value",
			len(m.stack), len(m.marks))
	}
	return settle(m.stack[0], n)
}

// step runs one instruction.
func (m *machine) step(op byte) error {
	switch op {
	case opFrame: // a length for readers that read ahead
		_, err := m.in.uint(8)
		return err
	case opMark:
		m.marks = append(m.marks, len(m.stack))
		return nil
	case opEmptyList, opEmptySet:
		m.push(&sequence{})
		return nil
	case opEmptyDict:
		m.push(&Dict{})
		return nil
	case opList, opDict, opTuple, opFrozenSet, opAppends, opAddItems, opSetItems:
		return m.gather(op)
	case opEmptyTuple:
		return m.tuple(0)
	case opTuple1, opTuple2, opTuple3:
		return m.tuple(int(op) - opTuple1 + 1)
	case opAppend:
		return m.withTop(1, func(args []any) error { return m.extend(args) })
	case opSetItem:
		return m.withTop(2, func(args []any) error { return m.setItems(args) })
	case opBinGet, opLongBinGet, opBinPut, opLongBinPut, opMemoize:
		return m.remember(op)
	case opGlobal, opStackGlobal, opReduce, opNewObj, opBuild, opBinPersID:
		return m.object(op)
	}
	return m.literal(op)
}

func (m *machine) push(v any) { m.stack = append(m.stack, v) }

// pop takes n values, the last pushed last; they must lie above the last mark.
func (m *machine) pop(n int) ([]any, error) {
	floor := 0
	if len(m.marks) > 0 {
		floor = m.marks[len(m.marks)-1]
	}
	if len(m.stack)-n < floor {
		return nil, errors.New("takes more values than there are")
	}
	top := m.stack[len(m.stack)-n:]
	m.stack = m.stack[:len(m.stack)-n]
	return top, nil
}

// popMark takes all values above the last mark, and the mark.
func (m *machine) popMark() ([]any, error) {
	if len(m.marks) == 0 {
		return nil, errors.New("a mark is missing")
	}
	top := m.stack[m.marks[len(m.marks)-1]:]
	m.stack = m.stack[:m.marks[len(m.marks)-1]]
	m.marks = m.marks[:len(m.marks)-1]
	return top, nil
}

func (m *machine) withTop(n int, use func([]any) error) error {
	args, err := m.pop(n)
	if err != nil {
		return err
	}
	return use(args)
}

// top returns the last value, which stays.
func (m *machine) top() (v any, err error) {
	err = m.withTop(1, func(args []any) error {
		v = args[0]
		m.push(v)
		return nil
	})
	return v, err
}

// gather runs the instructions that take all values above a mark. What it takes from the stack is copied, since the
// stack is used again.
func (m *machine) gather(op byte) error {
	items, err := m.popMark()
	if err != nil {
		return err
	}
	switch op {
	case opList, opFrozenSet:
		m.push(&sequence{items: slices.Clone(items)})
	case opTuple:
		m.push(&sequence{items: slices.Clone(items), tuple: true})
	case opDict:
		items = slices.Clone(items)
		m.push(&Dict{})
		return m.setItems(items)
	case opSetItems:
		return m.setItems(items)
	default: // opAppends, opAddItems
		return m.extend(items)
	}
	return nil
}

func (m *machine) tuple(n int) error {
	items, err := m.pop(n)
	if err != nil {
		return err
	}
	m.push(&sequence{items: slices.Clone(items), tuple: true})
	return nil
}

// extend appends to the list at the top of the stack.
func (m *machine) extend(items []any) error {
	to, err := m.top()
	if err != nil {
		return err
	}
	list, ok := to.(*sequence)
	if !ok || list.tuple {
		return fmt.Errorf("appends to %s, expected a list", describeValue(to))
	}
	list.items = append(list.items, items...)
	return nil
}

// setItems adds keys and values, which alternate, to the dict at the top of the stack.
func (m *machine) setItems(items []any) error {
	to, err := m.top()
	if err != nil {
		return err
	}
	dict, ok := to.(*Dict)
	if !ok {
		return fmt.Errorf("sets items of %s, expected a dict", describeValue(to))
	}
	if len(items)%2 != 0 {
		return errors.New("sets a key without a value")
	}
	for i := 0; i < len(items); i += 2 {
		if err := dict.add(items[i], items[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// remember runs the instructions that note a value or fetch a noted one. Numbers are as large as the file likes, so the
// notes are a map.
func (m *machine) remember(op byte) error {
	n := uint64(len(m.memo))
	if op != opMemoize {
		width := 1
		if op == opLongBinGet || op == opLongBinPut {
			width = 4
		}
		var err error
		if n, err = m.in.uint(width); err != nil {
			return err
		}
	}
	if op == opBinGet || op == opLongBinGet {
		v, ok := m.memo[uint32(n)]
		if !ok {
			return fmt.Errorf("refers to value %d, which was not noted before", n)
		}
		m.push(v)
		return nil
	}
	v, err := m.top()
	m.memo[uint32(n)] = v
	return err
}

// object runs the instructions that have to do with classes and functions.
func (m *machine) object(op byte) error {
	switch op {
	case opGlobal:
		module, err := m.in.line()
		if err != nil {
			return err
		}
		name, err := m.in.line()
		if err != nil {
			return err
		}
		return m.pushResult(resolve(module, name))
	case opBinPersID:
		return m.withTop(1, func(args []any) error {
			id, ok := args[0].(*sequence)
			if !ok || m.persistent == nil {
				return fmt.Errorf("refers to %s outside the pickle, expected a storage", describeValue(args[0]))
			}
			return m.pushResult(m.persistent(id.items))
		})
	}
	return m.withTop(2, func(args []any) error {
		if op == opStackGlobal {
			module, isModule := args[0].(string)
			name, isName := args[1].(string)
			if !isModule || !isName {
				return errors.New("names a class by something other than strings")
			}
			return m.pushResult(resolve(module, name))
		}
		if op == opBuild {
			m.push(args[0])
			if err := m.charge(args[1:]); err != nil {
				return err
			}
			return setState(args[0], args[1])
		}
		list, ok := args[1].(*sequence)
		if !ok || !list.tuple {
			return fmt.Errorf("calls with %s, expected a tuple", describeValue(args[1]))
		}
		if err := m.charge(list.items); err != nil {
			return err
		}
		return m.pushResult(construct(args[0], list.items))
	})
}

// charge counts what a constructor may copy of its arguments. They are written where it is called, so that all copies
// together are no longer than the file, unless noted arguments are used over and over.
func (m *machine) charge(args []any) error {
	if m.copied += copies(args); m.copied > m.in.at-m.begin {
		return errors.New("builds objects from the same long arguments over and over")
	}
	return nil
}

func (m *machine) pushResult(v any, err error) error {
	if err != nil {
		return err
	}
	m.push(v)
	return nil
}
