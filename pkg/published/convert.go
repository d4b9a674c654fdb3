package published

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"blip2/pkg/naming"
	"blip2/pkg/tokenizer"
	"blip2/pkg/weights"
)

// Output says where and how a model is written.
type Output struct {
	Dir       string // folder to be made; must not exist, or be empty
	To        string // naming.LAVIS or naming.HuggingFace
	Tokenizer string // folder whose tokenizer files go along; empty: for Hugging Face those beside the weights, if any
	MaxShard  int64  // bytes of a file; 0 is 5 GB
}

// Written says what Write has written.
type Written struct {
	Dir       string             `json:"dir"`
	Model     string             `json:"model"`
	Format    string             `json:"format"`
	Tensors   int                `json:"tensors"`
	Bytes     int64              `json:"bytes"`
	Files     []string           `json:"files"`     // sorted
	Tokenizer bool               `json:"tokenizer"` // whether a tokenizer's files are among them
	Dropped   []naming.Note      `json:"dropped"`   // tensors that the format has no place for
	Drawn     []naming.Note      `json:"drawn"`     // tensors that start from the seed
	Absent    []naming.Note      `json:"absent"`    // tensors that the source's format has no place for
	Coverages []*naming.Coverage `json:"coverages"` // of the files read
}

// Write writes the model as a folder: for transformers with its configuration files, or under LAVIS's names as
// safetensors. Tensors are read, converted and written one at a time. On an error nothing is left.
func (a *Assembly) Write(ctx context.Context, o Output) (*Written, error) {
	table, err := a.table(o.To)
	if err != nil {
		return nil, err
	}
	spec := a.Spec
	if o.To == naming.HuggingFace {
		if spec.Model == naming.BLIP2OPT && spec.EOS == 0 {
			spec.EOS = a.newline(o)
		}
		spec = spec.withPublishedTokens()
	}
	outputs, dropped, err := table.Export(a.Names(), a.Info, a.Tensor)
	if err != nil {
		return nil, err
	}
	files, err := a.sideFiles(spec, outputs, o)
	if err != nil {
		return nil, err
	}
	w := &Written{Dir: o.Dir, Model: spec.Model, Format: table.Name, Tensors: len(outputs), Dropped: dropped,
		Drawn: a.Drawn, Absent: a.Absent, Coverages: a.Coverages}
	metadata := map[string]string{"format": "pt"}
	if o.To == naming.LAVIS {
		raw, err := json.Marshal(spec)
		if err != nil {
			return nil, err
		}
		metadata[specKey] = string(raw)
	}
	err = weights.WriteDir(ctx, o.Dir, a.lazy(outputs, w), weights.DirOptions{MaxShardBytes: o.MaxShard,
		Metadata: metadata, Add: func(dir string) error { return writeFiles(dir, files) }})
	if err != nil {
		return nil, err
	}
	w.Tokenizer = slices.ContainsFunc(tokenizerFiles, func(name string) bool { return files[name] != nil })
	w.Files, err = list(o.Dir)
	return w, err
}

// table returns the way of naming that is asked for.
func (a *Assembly) table(to string) (naming.Table, error) {
	m, _ := naming.Find(a.Spec.Model)
	table, ok := m.Tables[to]
	switch {
	case m.Name == naming.BERT || m.Name == naming.EVAViT || m.Name == naming.CLIPViT:
		return table, fmt.Errorf("%s: holds %s, which is a part of BLIP-2: put it together with the others by "+
			"blip2 weights assemble", a.parts.Main, a.Spec.Model)
	case !ok && to == naming.LAVIS:
		return table, fmt.Errorf("%s: LAVIS has no form of its own for %s: it reads the folder of Hugging Face", a.parts.Main,
			a.Spec.Model)
	case !ok:
		return table, fmt.Errorf("%q is no form to write: want %s or %s", to, naming.HuggingFace, naming.LAVIS)
	case to == naming.HuggingFace:
		_, err := a.Spec.hfConfig() // which some models cannot have
		return table, err
	}
	return table, nil
}

// sideFiles returns what goes beside the weights, by name.
func (a *Assembly) sideFiles(spec Spec, outputs []naming.Output, o Output) (map[string][]byte, error) {
	files, err := a.tokenizer(spec, o)
	if err != nil || o.To != naming.HuggingFace {
		return files, err
	}
	types := make([]weights.DType, len(outputs))
	for i, o := range outputs {
		types[i] = o.DType
	}
	configs, err := HFFiles(spec, common(types))
	if err != nil {
		return nil, err
	}
	if err := a.keepOriginals(configs); err != nil {
		return nil, err
	}
	maps.Copy(files, configs)
	return files, nil
}

// tokenizer returns the files of the tokenizer that goes along: that of the options or, in Hugging Face's form, the one
// beside the weights. Where the model has an image token, so has the tokenizer.
func (a *Assembly) tokenizer(spec Spec, o Output) (map[string][]byte, error) {
	for _, dir := range a.tokenizerDirs(o) {
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			continue
		}
		files, err := readTokenizer(dir)
		if err != nil {
			return nil, err
		}
		if len(files) == 0 {
			continue
		}
		if spec.ImageToken != nil {
			if err := addImageToken(files, *spec.ImageToken); err != nil {
				return nil, fmt.Errorf("%s: %w", dir, err)
			}
		}
		return files, nil
	}
	if o.Tokenizer != "" {
		if info, err := os.Stat(o.Tokenizer); err != nil {
			return nil, fmt.Errorf("the tokenizer's folder: %w", err)
		} else if !info.IsDir() {
			return nil, fmt.Errorf("%s: is a file; name the folder of the tokenizer's files, %s", o.Tokenizer,
				filepath.Dir(o.Tokenizer))
		}
		return nil, fmt.Errorf("%s: holds none of a tokenizer's files: %v", o.Tokenizer, tokenizerFiles)
	}
	return map[string][]byte{}, nil
}

// tokenizerDirs returns where a tokenizer may be that goes along, the first that has one counts.
func (a *Assembly) tokenizerDirs(o Output) []string {
	switch {
	case o.Tokenizer != "":
		return []string{o.Tokenizer}
	case o.To == naming.HuggingFace:
		return []string{a.folder(a.parts.Main), a.folder(a.parts.LLM)}
	}
	return nil
}

// newline returns the token with which captions of BLIP-2 with OPT end, as the tokenizer that goes along has it; 0 if
// there is none that has one. It differs from the published one where the language model is not a published one.
func (a *Assembly) newline(o Output) int {
	for _, dir := range a.tokenizerDirs(o) {
		tok, err := tokenizer.Load(dir)
		if err != nil {
			continue
		}
		ids := tok.Encode("\n", tokenizer.EncodeOptions{NoSpecial: true})
		if len(ids) == 1 && tok.Decode(ids, false) == "\n" && int(ids[0]) < a.Spec.OPT.Vocab {
			return int(ids[0])
		}
		return 0
	}
	return 0
}

// folder returns the folder that a part was read from; of a file or an index in the folder of a model, that folder.
func (a *Assembly) folder(path string) string {
	if c := a.opened[path]; c != nil && filepath.Base(c.SpecFrom) == configFile {
		return filepath.Dir(c.SpecFrom)
	}
	return path
}

// lazy turns the outputs into what the writer takes; data are made when it asks for them.
func (a *Assembly) lazy(outputs []naming.Output, w *Written) []weights.Lazy {
	list := make([]weights.Lazy, len(outputs))
	for i, o := range outputs {
		data := func() ([]byte, error) {
			data, err := o.Data()
			w.Bytes += int64(len(data))
			return data, err
		}
		done := func() {
			for _, name := range o.Ours {
				a.Done(name)
			}
		}
		list[i] = weights.Lazy{Name: o.Name, DType: o.DType, Shape: o.Shape, Data: data, Done: done}
	}
	return list
}

func writeFiles(dir string, files map[string][]byte) error {
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := os.WriteFile(filepath.Join(dir, name), files[name], 0o666); err != nil {
			return err
		}
	}
	return nil
}

// list returns the names of the files in a folder, sorted.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}
