package verify

import (
	"errors"
	"fmt"

	"blip2/pkg/metrics/lemma"
)

// vqaLemmatize runs kind vqa-lemmatize. The reference's tagger is statistical and ours another: two shares must be
// reached, that of equal answers and that of equal ones among those that change.
func vqaLemmatize(c *Case, k *checker) error {
	var expected struct{ Pairs [][2]string }
	if err := c.readJSON(expectedFile, &expected); err != nil {
		return err
	}
	minEqual, err := c.allowance("min_share_equal")
	if err != nil {
		return err
	}
	minChanged, err := c.allowance("min_share_of_changed_equal")
	if err != nil {
		return err
	}
	if len(expected.Pairs) == 0 {
		return errors.New("no pairs are expected")
	}
	l := lemma.New()
	var all, changed share
	for _, pair := range expected.Pairs {
		equal := l.Lemmatize(pair[0]) == pair[1]
		all.add(equal)
		if pair[0] != pair[1] {
			changed.add(equal)
		}
	}
	compareShare(k, "equal", all, minEqual)
	compareShare(k, "equal of those that change", changed, minChanged)
	return nil
}

// share counts how many of a number of things are right.
type share struct{ right, n int }

func (s *share) add(right bool) {
	s.n++
	if right {
		s.right++
	}
}

// compareShare requires a least share. What is used of the tolerance is the share of wrong ones over that allowed.
func compareShare(k *checker, name string, s share, least float64) {
	k.compared++
	if s.n == 0 {
		return
	}
	got := float64(s.right) / float64(s.n)
	if used := (1 - got) / max(1-least, 1e-12); used > k.share {
		k.share, k.worst = used, fmt.Sprintf("%s: %d of %d", name, s.right, s.n)
	}
	if got < least {
		k.problem("%s: %d of %d are, a share of %.4f; %.4f are needed", name, s.right, s.n, got, least)
	}
}
