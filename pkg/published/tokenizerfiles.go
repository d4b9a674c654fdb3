package published

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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

// addImageToken makes the tokenizer know <image> under the given id, where it does not yet. Files that give the id to
// another token, or <image> another id, are an error.
func addImageToken(files map[string][]byte, id int) error {
	number := strconv.Itoa(id)
	token := object{"content": imageToken, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false,
		"special": true}
	if _, ok := files["added_tokens.json"]; !ok {
		files["added_tokens.json"] = []byte("{}")
	}
	err := editJSON(files, "tokenizer.json", func(root object) error {
		list, ok := root["added_tokens"].([]any)
		if !ok && root["added_tokens"] != nil {
			return errors.New("added_tokens is no list")
		}
		for _, entry := range list {
			m, _ := entry.(map[string]any)
			if known, err := isImageToken(m["content"], m["id"], number); known || err != nil {
				return err
			}
		}
		t := maps.Clone(token)
		t["id"] = id
		root["added_tokens"] = append(list, t)
		return nil
	})
	if err != nil {
		return err
	}
	err = editJSON(files, "added_tokens.json", func(root object) error {
		for _, content := range slices.Sorted(maps.Keys(root)) {
			if known, err := isImageToken(content, root[content], number); known || err != nil {
				return err
			}
		}
		root[imageToken] = id
		return nil
	})
	if err != nil {
		return err
	}
	return editJSON(files, "tokenizer_config.json", func(root object) error {
		root["processor_class"] = "Blip2Processor"
		decoder, ok := root["added_tokens_decoder"].(map[string]any)
		if !ok && root["added_tokens_decoder"] != nil {
			return errors.New("added_tokens_decoder is no object")
		}
		for _, key := range slices.Sorted(maps.Keys(decoder)) {
			m, _ := decoder[key].(map[string]any)
			if known, err := isImageToken(m["content"], key, number); known || err != nil {
				return err
			}
		}
		if decoder != nil { // without one the library reads added_tokens.json
			decoder[number] = token
		}
		return nil
	})
}

// isImageToken says whether an added token is <image> with the right id. Half of it is an error.
func isImageToken(content, id any, want string) (bool, error) {
	isImage, hasID := content == imageToken, fmt.Sprint(id) == want
	if isImage != hasID {
		return false, fmt.Errorf("id %v is that of %q, but the model has %s for %s: give the tokenizer of the model", id,
			content,
			want, imageToken)
	}
	return isImage, nil
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
	err := dec.Decode(&root)
	if _, more := dec.Token(); err != nil || root == nil || more != io.EOF {
		return fmt.Errorf("%s of the tokenizer is no JSON object", name)
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
