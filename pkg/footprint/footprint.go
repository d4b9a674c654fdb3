package footprint

import (
	. "github.com/gomlx/gomlx/core/graph"
)

type Prediction struct {
	Temporary int64
	At        int
	Live      []*Node
}

func bytes(n *Node) int64 {
	if n.NumOutputs() != 1 {
		return 0
	}
	var sum int64
	sum += int64(n.Shape().Size()) * int64(n.Shape().DType.Size())
	return sum
}

func alias(n *Node) bool {
	switch n.Type() {
	case NodeTypeReshape, NodeTypeIdentity, NodeTypeTranspose:
		return true
	}
	return false
}

func heavy(n *Node) bool {
	switch n.Type() {
	case NodeTypeDotGeneral, NodeTypeConvGeneral, NodeTypeGather, NodeTypeScatterSum, NodeTypeReduceSum, NodeTypeReduceMax,
		NodeTypeArgMinMax, NodeTypeConcatenate, NodeTypeRNGBitGenerator, NodeTypeSplitNode:
		return true
	}
	return false
}

func expensive(n *Node) bool {
	switch n.Type() {
	case NodeTypeExp, NodeTypeErf, NodeTypeTanh, NodeTypeLog, NodeTypeSqrt, NodeTypeRsqrt, NodeTypeDiv:
		return true
	}
	return false
}

func dot(n *Node) bool {
	switch n.Type() {
	case NodeTypeDotGeneral, NodeTypeConvGeneral:
		return true
	}
	return false
}

func Of(outs []*Node) Prediction {
	nodes := outs[0].Graph().Nodes()
	used := make([]bool, len(nodes))
	var stack []*Node
	for _, o := range outs {
		if !used[o.Id()] {
			used[o.Id()] = true
			stack = append(stack, o)
		}
	}
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, in := range n.Inputs() {
			if !used[in.Id()] {
				used[in.Id()] = true
				stack = append(stack, in)
			}
		}
	}
	output := make([]bool, len(nodes))
	for _, o := range outs {
		output[o.Id()] = true
	}
	users := make([][]*Node, len(nodes))
	for _, n := range nodes {
		if used[n.Id()] {
			for _, in := range n.Inputs() {
				users[in.Id()] = append(users[in.Id()], n)
			}
		}
	}
	// realUsers skips aliases.
	var real func(n *Node, f func(*Node))
	real = func(n *Node, f func(*Node)) {
		for _, u := range users[n.Id()] {
			if alias(u) {
				real(u, f)
				continue
			}
			f(u)
		}
	}
	mat := make([]bool, len(nodes))
	for _, n := range nodes {
		if !used[n.Id()] || alias(n) || n.Type() == NodeTypeParameter || n.Type() == NodeTypeConstant {
			continue
		}
		if heavy(n) {
			mat[n.Id()] = true
			continue
		}
		count := 0
		real(n, func(u *Node) {
			count++
			if dot(u) {
				mat[n.Id()] = true
			}
		})
		if expensive(n) && count > 1 {
			mat[n.Id()] = true
		}
	}
	root := func(n *Node) *Node {
		for alias(n) {
			n = n.Inputs()[0]
		}
		return n
	}
	single := func(n *Node) bool {
		c := 0
		real(n, func(*Node) { c++ })
		return c == 1
	}
	// Sums of gradients are made as soon as both terms are there, in the place of the first.
	pos := make([]int, len(nodes))
	inplace := make([]*Node, len(nodes))
	for i, n := range nodes {
		pos[i] = i
		if !used[i] || n.Type() != NodeTypeAdd {
			continue
		}
		a, b := root(n.Inputs()[0]), root(n.Inputs()[1])
		if a == b || !mat[a.Id()] || !mat[b.Id()] || !single(a) || !single(b) || bytes(a) != bytes(n) || bytes(b) != bytes(n) {
			continue
		}
		mat[i] = true
		pos[i] = max(pos[a.Id()], pos[b.Id()])
		inplace[i] = a
	}
	lastOf := make([]int, len(nodes))
	for i := len(nodes) - 1; i >= 0; i-- {
		if !used[i] {
			continue
		}
		end := pos[i]
		for _, u := range users[i] {
			if mat[u.Id()] {
				end = max(end, pos[u.Id()])
			} else {
				end = max(end, lastOf[u.Id()])
			}
		}
		lastOf[i] = end
	}
	// The first terms of a sum that is an output lie in the output.
	for i := len(nodes) - 1; i >= 0; i-- {
		if output[i] && inplace[i] != nil {
			output[inplace[i].Id()] = true
		}
	}
	delta := make([]int64, len(nodes)+1)
	for i, n := range nodes {
		if !used[i] || !mat[i] || output[i] {
			continue
		}
		from := pos[i]
		if inplace[i] != nil {
			from++ // until then it is its first term
		}
		if lastOf[i] < from {
			continue
		}
		delta[from] += bytes(n)
		delta[lastOf[i]+1] -= bytes(n)
	}
	var p Prediction
	var now int64
	for i := range nodes {
		now += delta[i]
		if now > p.Temporary {
			p.Temporary, p.At = now, i
		}
	}
	for i, n := range nodes {
		if used[i] && mat[i] && !output[i] && pos[i] <= p.At && lastOf[i] >= p.At {
			p.Live = append(p.Live, n)
		}
	}
	return p
}
