package published

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
)

// imageToken stands for the picture's queries in prompts of BLIP-2's newer folders.
const imageToken = "<image>"

// tokenizerFiles are the names under which transformers looks for a tokenizer.
var tokenizerFiles = []string{"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
	"vocab.json", "merges.txt", "vocab.txt", "spiece.model"}

// readTokenizer reads the files of the tokenizer in dir; none is no error.
func readTokenizer(dir string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range tokenizerFiles {
		raw, err := readSmall(filepath.Join(dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		default:
			files[name] = raw
		}
	}
	return files, nil
}

// addImageToken makes the tokenizer know <image> under the given id, where it does not yet.
func addImageToken(files map[string][]byte, id int) error {
	token := func() object {
		return object{"content": imageToken, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false,
			"special": true}
	}
	err := editJSON(files, "tokenizer.json", func(root object) error {
		list, _ := root["added_tokens"].([]any)
		known := slices.ContainsFunc(list, func(v any) bool {
			m, _ := v.(map[string]any)
			return m["content"] == imageToken
		})
		if !known {
			t := token()
			t["id"] = id
			root["added_tokens"] = append(list, t)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, ok := files["added_tokens.json"]; !ok {
		files["added_tokens.json"] = []byte("{}")
	}
	err = editJSON(files, "added_tokens.json", func(root object) error {
		root[imageToken] = id
		return nil
	})
	if err != nil {
		return err
	}
	return editJSON(files, "tokenizer_config.json", func(root object) error {
		decoder, _ := root["added_tokens_decoder"].(map[string]any)
		if decoder == nil {
			decoder = map[string]any{}
		}
		decoder[strconv.Itoa(id)] = token()
		root["added_tokens_decoder"] = decoder
		root["processor_class"] = "Blip2Processor"
		return nil
	})
}

// editJSON changes a file if it is there. Numbers keep their digits.
func editJSON(files map[string][]byte, name string, edit func(root object) error) error {
	raw, ok := files[name]
	if !ok {
		return nil
	}
	var root object
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&root); err != nil || root == nil {
		return fmt.Errorf("%s of the tokenizer is not a JSON object: %v", name, err)
	}
	if err := edit(root); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(root); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	files[name] = out.Bytes()
	return nil
}
