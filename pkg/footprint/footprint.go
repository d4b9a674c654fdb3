// Package footprint predicts how much memory a compiled program takes, from its graph alone: nothing is compiled, and
// no tensor is made.
//
// It does what XLA's compiler does, in large strokes. Results of matrix products, convolutions, reductions, gathers and
// the like are written to memory; what is computed element by element becomes part of the operation that uses it,
// unless a product needs it whole, or it is expensive and used more than once. A value lives until its last use, which
// may lie behind such fused operations. Sums of gradients are made as soon as their terms are there, in the place of
// one of them.
package footprint

import (
	"slices"

	. "github.com/gomlx/gomlx/core/graph"
)

// Prediction is the memory of a program's intermediate values, in bytes.
type Prediction struct {
	Peak  int64 // most that lives at the same time
	Nodes int   // operations of the graph
}

// Of predicts the memory of a program with these results. The results themselves and the parameters are not in it.
func Of(results []*Node) Prediction {
	a := newAnalysis(results)
	a.findWritten()
	a.sumInPlace()
	a.findLastUses()
	return a.peak()
}

// analysis is what is known of every node of a graph, by its id.
type analysis struct {
	nodes   []*Node
	used    []bool    // a result depends on it
	result  []bool    // it is a result, or lies in the place of one
	users   [][]*Node // that use it
	written []bool    // it is written to memory
	at      []int     // when it is computed
	place   []*Node   // the node whose memory it takes over; nil for memory of its own
	last    []int     // when it is used last
}

func newAnalysis(results []*Node) *analysis {
	nodes := results[0].Graph().Nodes()
	n := len(nodes)
	a := &analysis{nodes: nodes, used: make([]bool, n), result: make([]bool, n), users: make([][]*Node, n),
		written: make([]bool, n), at: make([]int, n), place: make([]*Node, n), last: make([]int, n)}
	stack := slices.Clone(results)
	for _, r := range results {
		a.result[r.Id()], a.used[r.Id()] = true, true
	}
	for len(stack) > 0 {
		node := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, in := range node.Inputs() {
			a.users[in.Id()] = append(a.users[in.Id()], node)
			if !a.used[in.Id()] {
				a.used[in.Id()] = true
				stack = append(stack, in)
			}
		}
	}
	return a
}

// size is the memory of a node's value. Nodes of several values are split into nodes of one. Of random numbers, which
// are such parts, nothing is kept but the decision that they are drawn for: a byte.
func size(n *Node) int64 {
	switch {
	case n.NumOutputs() != 1:
		return 0
	case n.Type() == NodeTypeSplitNode:
		return int64(n.Shape().Size())
	}
	return int64(n.Shape().Size()) * int64(n.DType().Size())
}

// renames reports whether a node is another view of its input.
func renames(n *Node) bool {
	switch n.Type() {
	case NodeTypeReshape, NodeTypeIdentity, NodeTypeTranspose:
		return true
	}
	return false
}

// isProduct reports whether a node reads its inputs whole.
func isProduct(n *Node) bool {
	switch n.Type() {
	case NodeTypeDotGeneral, NodeTypeConvGeneral:
		return true
	}
	return false
}

// isWritten reports whether the result of a node always goes to memory.
func isWritten(n *Node) bool {
	switch n.Type() {
	case NodeTypeGather, NodeTypeScatterSum, NodeTypeReduceSum, NodeTypeReduceMax, NodeTypeArgMinMax,
		NodeTypeConcatenate, NodeTypeRNGBitGenerator, NodeTypeSplitNode:
		return true
	}
	return isProduct(n)
}

// isExpensive reports whether a node is too dear to be computed once for every use.
func isExpensive(n *Node) bool {
	switch n.Type() {
	case NodeTypeExp, NodeTypeErf, NodeTypeTanh, NodeTypeLog, NodeTypeSqrt, NodeTypeRsqrt, NodeTypeDiv:
		return true
	}
	return false
}

// eachUser calls f for the users of a node's value, behind other views of it.
func (a *analysis) eachUser(n *Node, f func(*Node)) {
	for _, u := range a.users[n.Id()] {
		if renames(u) {
			a.eachUser(u, f)
			continue
		}
		f(u)
	}
}

func (a *analysis) findWritten() {
	for i, n := range a.nodes {
		if !a.used[i] || renames(n) || n.Type() == NodeTypeParameter || n.Type() == NodeTypeConstant {
			continue
		}
		users, whole := 0, false
		a.eachUser(n, func(u *Node) {
			users++
			whole = whole || isProduct(u)
		})
		a.written[i] = isWritten(n) || whole || isExpensive(n) && users > 1
	}
}

// sumInPlace finds sums of two written values that nothing else uses, such as gradients of a tensor by two ways.
func (a *analysis) sumInPlace() {
	for i, n := range a.nodes {
		a.at[i] = i
		if !a.used[i] || n.Type() != NodeTypeAdd {
			continue
		}
		x, y := origin(n.Inputs()[0]), origin(n.Inputs()[1])
		if x == y || !a.ends(x, n) || !a.ends(y, n) {
			continue
		}
		a.written[i], a.at[i], a.place[i] = true, max(a.at[x.Id()], a.at[y.Id()]), x
	}
	// The first terms of a sum that is a result lie in the result.
	for i := len(a.nodes) - 1; i >= 0; i-- {
		if a.result[i] && a.place[i] != nil {
			a.result[a.place[i].Id()] = true
		}
	}
}

// origin is the node that a view is of.
func origin(n *Node) *Node {
	for renames(n) {
		n = n.Inputs()[0]
	}
	return n
}

// ends reports whether a value is written, as large as the sum, and used by it alone.
func (a *analysis) ends(x, sum *Node) bool {
	users := 0
	a.eachUser(x, func(*Node) { users++ })
	return a.written[x.Id()] && users == 1 && size(x) == size(sum)
}

// findLastUses finds when a value is needed last: by a written user, or by one behind fused operations.
func (a *analysis) findLastUses() {
	for i := len(a.nodes) - 1; i >= 0; i-- {
		if !a.used[i] {
			continue
		}
		a.last[i] = a.at[i]
		for _, u := range a.users[i] {
			end := a.last[u.Id()]
			if a.written[u.Id()] {
				end = a.at[u.Id()]
			}
			a.last[i] = max(a.last[i], end)
		}
	}
}

func (a *analysis) peak() Prediction {
	change := make([]int64, len(a.nodes)+1)
	for i, n := range a.nodes {
		if !a.used[i] || !a.written[i] || a.result[i] {
			continue
		}
		from := a.at[i]
		if a.place[i] != nil {
			from++ // until then it is its first term
		}
		if a.last[i] >= from {
			change[from] += size(n)
			change[a.last[i]+1] -= size(n)
		}
	}
	p := Prediction{Nodes: len(a.nodes)}
	now := int64(0)
	for _, c := range change {
		now += c
		p.Peak = max(p.Peak, now)
	}
	return p
}
