package tokenizer

import (
	"slices"
	"sort"
	"strings"
)

// trie finds the keys that a text begins with. Its nodes are numbered breadth first, so that the edges, listed node
// after node, lead to the nodes 1, 2, 3, …: edge e ends at node e+1. It is immutable after newTrie.
type trie struct {
	labels []byte        // byte of every edge, ascending within a node
	first  []int32       // first edge of every node, and the number of edges at the end
	values []int32       // value of the key that ends at the node, or noValue
	root   [1 << 8]int32 // node that a first byte leads to, or noNode
}

const (
	noValue = -1
	noNode  = -1
)

type trieKey struct {
	key   string
	value int32
}

// newTrie builds a trie; of equal keys the first one counts, empty ones are left out. Its size is that of all keys
// together at most.
func newTrie(keys []trieKey) *trie {
	keys = slices.Clone(keys)
	slices.SortStableFunc(keys, func(a, b trieKey) int { return strings.Compare(a.key, b.key) })
	keys = slices.CompactFunc(keys, func(a, b trieKey) bool { return a.key == b.key })
	if len(keys) > 0 && keys[0].key == "" {
		keys = keys[1:]
	}
	t := &trie{}
	t.build(keys)
	for b := range t.root {
		t.root[b] = noNode
	}
	if len(t.first) > 0 {
		for e := t.first[0]; e < t.first[1]; e++ {
			t.root[t.labels[e]] = e + 1
		}
	}
	return t
}

// build lists the nodes breadth first. keys are sorted, different and not empty.
func (t *trie) build(keys []trieKey) {
	type group struct{ lo, hi, depth int } // the keys that pass through a node, and its depth
	queue := []group{{0, len(keys), 0}}
	for len(queue) > 0 {
		g := queue[0]
		queue = queue[1:]
		t.first = append(t.first, int32(len(t.labels)))
		value := int32(noValue)
		if g.lo < g.hi && len(keys[g.lo].key) == g.depth {
			value = keys[g.lo].value
			g.lo++
		}
		t.values = append(t.values, value)
		for lo := g.lo; lo < g.hi; {
			b := keys[lo].key[g.depth]
			hi := lo + sort.Search(g.hi-lo, func(i int) bool { return keys[lo+i].key[g.depth] > b })
			t.labels = append(t.labels, b)
			queue = append(queue, group{lo, hi, g.depth + 1})
			lo = hi
		}
	}
	t.first = append(t.first, int32(len(t.labels)))
}

// child gives the node that byte b leads to from a node, or noNode.
func (t *trie) child(node int32, b byte) int32 {
	if node == 0 {
		return t.root[b]
	}
	lo, hi := t.first[node], t.first[node+1]
	for hi-lo > 8 {
		if mid := (lo + hi) / 2; t.labels[mid] > b {
			hi = mid
		} else {
			lo = mid
		}
	}
	for ; lo < hi; lo++ {
		if t.labels[lo] == b {
			return lo + 1
		}
	}
	return noNode
}

// longest gives the value of the longest key that s begins with and its length, 0 if there is none.
func (t *trie) longest(s string) (value int32, length int) {
	node := int32(0)
	for i := 0; i < len(s); i++ {
		if node = t.child(node, s[i]); node == noNode {
			break
		}
		if v := t.values[node]; v != noValue {
			value, length = v, i+1
		}
	}
	return value, length
}
