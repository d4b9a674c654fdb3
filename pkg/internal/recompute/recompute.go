// Package recompute is for tests of caches: a generate.Model that keeps nothing but ids.
package recompute

import "context"

// Model computes the logits of all texts anew at every step, from their first tokens.
type Model struct {
	// Prompts are what the texts of each row begin with.
	Prompts [][]int32
	// Logits computes the logits of what follows each text, [texts, vocab]; text i belongs to row rows[i].
	Logits func(rows []int32, texts [][]int32) ([]float32, error)

	rows  []int32 // of each text
	texts [][]int32
}

// Start is that of generate.Model.
func (m *Model) Start(context.Context) ([]float32, error) {
	m.rows, m.texts = make([]int32, len(m.Prompts)), m.Prompts
	for i := range m.rows {
		m.rows[i] = int32(i)
	}
	return m.Logits(m.rows, m.texts)
}

// Step is that of generate.Model.
func (m *Model) Step(_ context.Context, parents []int, tokens []int32) ([]float32, error) {
	rows, texts := make([]int32, len(parents)), make([][]int32, len(parents))
	for i, parent := range parents {
		old := m.texts[parent]
		rows[i], texts[i] = m.rows[parent], append(old[:len(old):len(old)], tokens[i])
	}
	m.rows, m.texts = rows, texts
	return m.Logits(rows, texts)
}
