// Package inplace lets a compiled program write new values of variables over the old ones.
//
// GoMLX gives the buffer of a variable that changes away to the program ("donation"), but go-xla does not tell the
// compiler which output takes its place; XLA then allocates every new value beside the old one. Whoever builds such a
// program announces it here, and package device, through which programs pass on their way to the compiler, writes the
// announcement into the program's text (StableHLO's attribute tf.aliasing_output). It is a hint: XLA copies where a
// value is still needed, and a program without it computes the same.
package inplace

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// announced holds the programs that are about to be compiled: by the name of the graph, the parameters whose buffers
// the first outputs take. Programs reach the compiler through a C interface that carries nothing but their text, so
// the two ends can only meet in state of the process.
var announced = struct {
	sync.Mutex
	outputs map[string][]string
}{outputs: map[string][]string{}}

// Announce says of the graph of the given name that its i-th output is the new value of the parameter params[i]. It
// holds until Withdraw.
func Announce(graph string, params []string) {
	announced.Lock()
	defer announced.Unlock()
	announced.outputs[identifier(graph)] = params
}

// Withdraw ends what Announce has begun.
func Withdraw(graph string) {
	announced.Lock()
	defer announced.Unlock()
	delete(announced.outputs, identifier(graph))
}

// Edit writes into the text of a StableHLO module what was announced for it. A module of which nothing is known or
// that is not what was announced comes back as it was.
func Edit(module []byte) []byte {
	name := moduleName.FindSubmatch(module)
	if name == nil {
		return module
	}
	announced.Lock()
	params := announced.outputs[string(name[1])]
	announced.Unlock()
	if len(params) == 0 {
		return module
	}
	edited, err := alias(module, params)
	if err != nil {
		return module
	}
	return edited
}

var (
	moduleName = regexp.MustCompile(`^\s*module @(\w+)`)
	parameter  = regexp.MustCompile(`%(\w+): (tensor<[^>]*>)( \{)?`)
	tensorType = regexp.MustCompile(`tensor<[^>]*>`)
)

// alias gives the parameters of the main function the attribute that names their outputs.
func alias(module []byte, params []string) ([]byte, error) {
	const begin, arrow = "func.func @main(", ") -> "
	start := bytes.Index(module, []byte(begin))
	if start < 0 {
		return nil, fmt.Errorf("the module has no main function")
	}
	start += len(begin)
	end := bytes.Index(module[start:], []byte(arrow))
	if end < 0 {
		return nil, fmt.Errorf("the main function has no outputs")
	}
	end += start
	outputs := map[string]int{}
	for i, p := range params {
		outputs[identifier(p)] = i
	}
	types := tensorType.FindAll(firstLine(module[end+len(arrow):]), len(params))
	var out bytes.Buffer
	done, found := 0, 0
	for _, at := range parameter.FindAllSubmatchIndex(module[start:end], -1) {
		for k := range at {
			if at[k] >= 0 {
				at[k] += start
			}
		}
		output, ok := outputs[string(module[at[2]:at[3]])]
		if !ok {
			continue
		}
		if output >= len(types) || !bytes.Equal(types[output], module[at[4]:at[5]]) {
			return nil, fmt.Errorf("parameter %s and output %d differ", params[output], output)
		}
		found++
		out.Write(module[done:at[5]])
		done = at[1]
		fmt.Fprintf(&out, " {tf.aliasing_output = %d : i32", output)
		if at[6] >= 0 { // the parameter has attributes already
			out.WriteString(", ")
		} else {
			out.WriteString("}")
		}
	}
	if found != len(outputs) {
		return nil, fmt.Errorf("%d of %d parameters found", found, len(outputs))
	}
	out.Write(module[done:])
	return out.Bytes(), nil
}

// firstLine returns the text up to the end of the line that opens the function's body.
func firstLine(text []byte) []byte {
	if end := bytes.Index(text, []byte(" {\n")); end >= 0 {
		return text[:end]
	}
	return text
}

// identifier is how go-xla writes a name: everything but ASCII letters, digits and the underscore becomes one, and a
// digit does not come first.
func identifier(name string) string {
	if name != "" && name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}
