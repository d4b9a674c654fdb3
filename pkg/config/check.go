package config

import (
	"fmt"
	"strings"
)

// Checker collects what rules between several fields find.
type Checker struct{ d *decoder }

// Failf reports a mistake that involves the given keys. It is attributed to the place of the key with the strongest
// source, since that is the one that was written last; of equals the first. It says nothing when one of the keys
// has a mistake already.
func (c *Checker) Failf(keys []string, format string, args ...any) {
	blame := keys[0]
	for _, key := range keys {
		if c.d.hasFailed(key) {
			return
		}
		if c.d.sources.Of(key).Kind > c.d.sources.Of(blame).Kind {
			blame = key
		}
	}
	origin := c.d.sources.Of(blame)
	if origin.Kind == FromDefault {
		origin = c.d.sources.near(blame)
	}
	c.d.failf(origin, blame, format, args...)
}

// Required reports a key that must be given because of others. An unfinished configuration may lack it.
func (c *Checker) Required(key, what string) {
	if !c.d.partial && !c.d.incomplete && !c.d.hasFailed(key) {
		c.d.failf(c.d.sources.near(key), key, "is required: %s; write it in the file or give --set %s=...", what, key)
	}
}

// Warnf records something that is allowed but probably not meant. An unfinished configuration gets no warnings.
func (c *Checker) Warnf(format string, args ...any) {
	if c.d.partial {
		return
	}
	c.d.sources.Warnings = append(c.d.sources.Warnings, fmt.Sprintf(format, args...))
}

// hasFailed tells whether the key, something within it or a section around it has a problem.
func (d *decoder) hasFailed(key string) bool {
	for bad := range d.failed {
		if bad != "" && (within(key, bad) || within(bad, key)) {
			return true
		}
	}
	return false
}

// within tells whether key is the outer key or lies below it.
func within(key, outer string) bool {
	rest, ok := strings.CutPrefix(key, outer)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}
