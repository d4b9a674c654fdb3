package config

import (
	"fmt"
	"reflect"
	"sort"
	"strings"
)

const envPrefix = "BLIP2_"

// reservedEnv are variables with a meaning of their own: global flags that are not configuration keys, folders of
// test data, and where plugins come from and go to.
func reservedEnv(name string) bool {
	switch name {
	case "BLIP2_LOG_LEVEL", "BLIP2_JSON", "BLIP2_QUIET", "BLIP2_GOLDEN", "BLIP2_DATA", "BLIP2_PYPI_INDEX":
		return true
	}
	for _, prefix := range []string{"BLIP2_CACHE", "BLIP2_PLUGIN", "BLIP2_TEST"} {
		if hasWordPrefix(name, prefix) {
			return true
		}
	}
	return false
}

func hasWordPrefix(name, prefix string) bool {
	return name == prefix || strings.HasPrefix(name, prefix+"_")
}

// EnvName is the environment variable of a key: BLIP2_OPTIM_LR for optim.lr.
func EnvName(key string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// envLayer turns BLIP2_ variables into assignments. A variable that is set but empty counts as not set, as is usual
// for environments. Unknown ones are warned about and not fatal: they may be meant for another version.
func (d *decoder) envLayer(env []string, dir string) []assignment {
	keys := map[string]string{}
	var variables []string
	eachLeaf(d.root, "", func(key string, _ field, _ reflect.Type) {
		if !strings.Contains(key, "[]") {
			keys[EnvName(key)] = key
			variables = append(variables, EnvName(key))
		}
	})
	sorted := append([]string(nil), env...)
	sort.Strings(sorted)
	var layer []assignment
	for _, entry := range sorted {
		name, value, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, envPrefix) || value == "" {
			continue
		}
		key, known := keys[name]
		switch {
		case known:
			at := place{origin: Origin{Kind: FromEnv, Name: "environment variable " + name}, dir: dir}
			if a, ok := d.parseAssignment(key, value, at); ok {
				layer = append(layer, a)
			}
		case !reservedEnv(name):
			d.sources.Warnings = append(d.sources.Warnings,
				fmt.Sprintf("environment variable %s has no meaning here%s", name, didYouMean(name, variables)))
		}
	}
	return layer
}
