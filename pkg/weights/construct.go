package weights

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// global is a Python class or function by its module and name.
type global struct{ module, name string }

func (g global) String() string { return g.module + "." + g.name }

// torchDType is torch.float16 etc. as a value, without the module.
type torchDType string

// torchDTypes are the element types of tensors by PyTorch's names.
var torchDTypes = map[torchDType]DType{
	"float64": F64, "float32": F32, "float16": F16, "bfloat16": BF16,
	"int64": I64, "int32": I32, "int16": I16, "int8": I8,
	"uint64": U64, "uint32": U32, "uint16": U16, "uint8": U8, "bool": BOOL,
}

// storageTypes are the element types of storages by the names of their classes in module torch. An untyped storage
// counts bytes; the tensors in it say what they are.
var storageTypes = map[string]DType{
	"DoubleStorage": F64, "FloatStorage": F32, "HalfStorage": F16, "BFloat16Storage": BF16,
	"LongStorage": I64, "IntStorage": I32, "ShortStorage": I16, "CharStorage": I8, "ByteStorage": U8,
	"BoolStorage": BOOL,
}

// untyped stands for the class of storages without an element type.
var untyped = global{"torch.storage", "UntypedStorage"}

// constructors are all classes and functions that a file may call, and what they come to here.
var constructors = map[global]func(args []any) (any, error){
	{"collections", "OrderedDict"}:                    orderedDict,
	{"argparse", "Namespace"}:                         namespace,
	{"torch", "Size"}:                                 size,
	{"torch", "device"}:                               torchDevice,
	{"torch._utils", "_rebuild_tensor"}:               rebuildTensor,
	{"torch._utils", "_rebuild_tensor_v2"}:            rebuildTensor,
	{"torch._utils", "_rebuild_tensor_v3"}:            rebuildTensor,
	{"torch._utils", "_rebuild_parameter"}:            rebuildParameter,
	{"torch._utils", "_rebuild_parameter_with_state"}: rebuildParameter,
	// Protocol 2 has no instructions for sets and bytes.
	{"builtins", "set"}:       set,
	{"builtins", "frozenset"}: set,
	{"builtins", "bytes"}:     noBytes,
	{"_codecs", "encode"}:     encodeBytes,
}

// resolve returns the value for a class or function that a file names: one of constructors, a class of storages or an
// element type. Anything else is an error.
func resolve(module, name string) (any, error) {
	g := global{module, name}
	if module == "__builtin__" { // as protocol 2 calls it
		g.module = "builtins"
	}
	if _, ok := constructors[g]; ok || g == untyped {
		return g, nil
	}
	if module == "torch" {
		if _, ok := storageTypes[name]; ok {
			return g, nil
		}
		if _, ok := torchDTypes[torchDType(name)]; ok {
			return torchDType(name), nil
		}
	}
	return nil, fmt.Errorf("uses the Python object %s, which is not part of a state dict, and nothing from a file is "+
		"executed: save the weights alone with torch.save(model.state_dict(), path)", clip(g.String()))
}

// construct calls a constructor.
func construct(callee any, args []any) (any, error) {
	g, _ := callee.(global)
	call, ok := constructors[g]
	if !ok {
		return nil, fmt.Errorf("calls %s", describeValue(callee))
	}
	v, err := call(args)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", g, err)
	}
	return v, nil
}

// copies is how many values or characters calling a constructor with these arguments may copy.
func copies(args []any) int {
	n := 0
	for _, arg := range args {
		switch arg := arg.(type) {
		case string:
			n += len(arg)
		case *sequence:
			n += len(arg.items)
		case *Dict:
			n += arg.Len()
		}
	}
	return n
}

// setState gives an object the attributes that it was saved with. Those of an OrderedDict say which versions its
// modules had; a namespace consists of them.
func setState(object, state any) error {
	d, ok := object.(*Dict)
	if !ok {
		return fmt.Errorf("sets attributes of %s", describeValue(object))
	}
	attributes, ok := state.(*Dict)
	if !ok {
		return fmt.Errorf("sets attributes to %s, expected a dict", describeValue(state))
	}
	if !d.namespace {
		return nil
	}
	for key, value := range attributes.All() {
		if err := d.add(key, value); err != nil {
			return err
		}
	}
	return nil
}

// orderedDict is OrderedDict() or OrderedDict([[key, value], …]), as Python 2 wrote it.
func orderedDict(args []any) (any, error) {
	d := &Dict{}
	if len(args) == 0 {
		return d, nil
	}
	pairs, ok := args[0].(*sequence)
	if !ok || len(args) > 1 {
		return nil, errors.New("expected a list of keys and values")
	}
	for _, pair := range pairs.items {
		p, ok := pair.(*sequence)
		if !ok || len(p.items) != 2 {
			return nil, errors.New("expected pairs of a key and a value")
		}
		if err := d.add(p.items[0], p.items[1]); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// namespace is argparse.Namespace(), whose attributes setState adds: the options of a training script.
func namespace(args []any) (any, error) {
	if len(args) > 0 {
		return nil, errors.New("expected no arguments")
	}
	return &Dict{namespace: true}, nil
}

// size is torch.Size((2, 3)).
func size(args []any) (any, error) {
	if len(args) == 1 {
		if q, ok := args[0].(*sequence); ok && q.tuple {
			return q, nil
		}
	}
	return nil, errors.New("expected a tuple")
}

// torchDevice is torch.device("cuda", 0), here "cuda:0".
func torchDevice(args []any) (any, error) {
	if len(args) == 1 || len(args) == 2 {
		if kind, ok := args[0].(string); ok {
			if len(args) == 1 {
				return kind, nil
			}
			if index, ok := args[1].(int64); ok {
				return fmt.Sprintf("%s:%d", kind, index), nil
			}
		}
	}
	return nil, errors.New("expected a kind of device and an index")
}

// encodeBytes is _codecs.encode(text, "latin1"): bytes, each as the character of its number.
func encodeBytes(args []any) (any, error) {
	if len(args) != 2 || args[1] != "latin1" {
		return nil, errors.New(`expected a string and "latin1"`)
	}
	text, ok := args[0].(string)
	if !ok {
		return nil, errors.New("expected a string")
	}
	raw := make([]byte, 0, utf8.RuneCountInString(text))
	for _, r := range text {
		if r > 0xff {
			return nil, fmt.Errorf("the character %q is no byte", r)
		}
		raw = append(raw, byte(r))
	}
	return raw, nil
}

// noBytes is bytes(), which are none.
func noBytes(args []any) (any, error) {
	if len(args) > 0 {
		return nil, errors.New("expected no arguments")
	}
	return []byte{}, nil
}

// set is set([…]) or frozenset([…]), here a list.
func set(args []any) (any, error) {
	if len(args) == 1 {
		if q, ok := args[0].(*sequence); ok && !q.tuple {
			return q, nil
		}
	}
	return nil, errors.New("expected a list")
}

// rebuildTensor is _rebuild_tensor(storage, offset, size, stride), in version 2 and 3 with requires_grad and hooks,
// which say nothing about the values. Then come in version 2 {"conj": …, "neg": …}, which do, and in version 3 the
// element type.
func rebuildTensor(args []any) (any, error) {
	if len(args) < 4 || len(args) > 8 {
		return nil, fmt.Errorf("%d arguments, expected 4 to 8", len(args))
	}
	view, ok := args[0].(storageView)
	if !ok {
		return nil, fmt.Errorf("builds a tensor from %s, expected a storage", describeValue(args[0]))
	}
	dtype := view.storage.dtype
	for _, more := range args[min(6, len(args)):] {
		switch more := more.(type) {
		case nil:
		case torchDType:
			dtype = torchDTypes[more]
		case *Dict:
			for key, on := range more.All() {
				if on != false {
					return nil, fmt.Errorf("the tensor is stored with %s = %s, which is not supported: "+
						"save it with resolve_conj() and resolve_neg()", describeKey(key), describeValue(on))
				}
			}
		default:
			return nil, fmt.Errorf("argument %s was not expected", describeValue(more))
		}
	}
	offset, ok := wholeNumber(args[1])
	if !ok {
		return nil, fmt.Errorf("the offset is %s, expected a whole number from 0", describeValue(args[1]))
	}
	shape, err := intTuple("shape", args[2])
	if err != nil {
		return nil, err
	}
	stride, err := intTuple("stride", args[3])
	if err != nil {
		return nil, err
	}
	return newTorchTensor(view, dtype, offset, shape, stride)
}

// rebuildParameter is _rebuild_parameter(tensor, requires_grad, hooks), with the Python attributes of the parameter
// behind them where it has some.
func rebuildParameter(args []any) (any, error) {
	if len(args) < 3 || len(args) > 4 {
		return nil, fmt.Errorf("%d arguments, expected 3 or 4", len(args))
	}
	t, ok := args[0].(*TorchTensor)
	if !ok {
		return nil, fmt.Errorf("makes a parameter of %s, expected a tensor", describeValue(args[0]))
	}
	return t, nil
}

// intTuple reads a shape or strides.
func intTuple(what string, v any) ([]int, error) {
	q, ok := v.(*sequence)
	if !ok {
		return nil, fmt.Errorf("the %s is %s, expected a tuple", what, describeValue(v))
	}
	if len(q.items) > maxDims {
		return nil, fmt.Errorf("the %s has %d dimensions, allowed are %d", what, len(q.items), maxDims)
	}
	list := make([]int, len(q.items))
	for i, item := range q.items {
		n, ok := wholeNumber(item)
		if !ok {
			return nil, fmt.Errorf("the %s holds %s, expected whole numbers from 0", what, describeValue(item))
		}
		list[i] = n
	}
	return list, nil
}

// wholeNumber returns a number that is not negative.
func wholeNumber(v any) (int, bool) {
	n, ok := v.(int64)
	return int(n), ok && n >= 0 && n <= math.MaxInt
}
