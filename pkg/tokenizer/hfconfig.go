package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Files of a model folder in Hugging Face's layout, and OpenAI's file for CLIP.
const (
	fileTokenizer   = "tokenizer.json"
	fileConfig      = "tokenizer_config.json"
	fileSpecial     = "special_tokens_map.json"
	fileAdded       = "added_tokens.json"
	fileVocabTxt    = "vocab.txt"
	fileVocabJSON   = "vocab.json"
	fileMerges      = "merges.txt"
	fileSpiece      = "spiece.model"
	fileCLIPMerges  = "bpe_simple_vocab_16e6.txt.gz"
	defaultExtraIDs = 100 // of T5: the tokens <extra_id_0> to <extra_id_99>
)

// kind is a family of tokenizers, Hugging Face's tokenizer classes.
type kind uint8

const (
	kindUnknown kind = iota
	kindBERT
	kindGPT2 // OPT's, too
	kindCLIP
	kindT5
)

func (k kind) String() string {
	return [...]string{"unknown", "BERT (WordPiece)", "GPT-2 or OPT (byte-level BPE)", "CLIP (BPE)", "T5 (unigram)"}[k]
}

// classes are the tokenizer classes that tokenizer_config.json may name, without the ending Fast. Read only.
var classes = map[string]kind{"BertTokenizer": kindBERT, "GPT2Tokenizer": kindGPT2, "CLIPTokenizer": kindCLIP,
	"T5Tokenizer": kindT5}

// hfConfig is what tokenizer_config.json, special_tokens_map.json and added_tokens.json say.
type hfConfig struct {
	present bool // there is a tokenizer_config.json
	class   string
	tokens  map[string]addedTokenJSON // special tokens by attribute, such as "bos_token"
	plain   map[string]bool           // those that are given by name alone
	extra   []addedTokenJSON          // additional_special_tokens and extra_special_tokens
	// added are the tokens that have been added to the vocabulary, by id.
	added         []addedTokenJSON
	cleanUp       *bool
	addPrefix     *bool // add_prefix_space
	addBOS        bool
	legacy        bool // of T5
	extraIDs      int  // of T5
	lowerCase     *bool
	stripAccents  *bool
	chineseChars  *bool
	listsAdded    bool // there is an added_tokens_decoder
	listsSpecials bool // additional_special_tokens are given
}

// configJSON is tokenizer_config.json.
type configJSON struct {
	Class        string                     `json:"tokenizer_class"`
	CleanUp      *bool                      `json:"clean_up_tokenization_spaces"`
	AddPrefix    *bool                      `json:"add_prefix_space"`
	AddBOS       *bool                      `json:"add_bos_token"`
	Legacy       *bool                      `json:"legacy"`
	ExtraIDs     *int                       `json:"extra_ids"`
	LowerCase    *bool                      `json:"do_lower_case"`
	StripAccents *bool                      `json:"strip_accents"`
	ChineseChars *bool                      `json:"tokenize_chinese_chars"`
	Added        map[string]addedTokenJSON  `json:"added_tokens_decoder"`
	Additional   []json.RawMessage          `json:"additional_special_tokens"`
	Extra        map[string]json.RawMessage `json:"extra_special_tokens"`
}

// specialAttributes are the attributes of special tokens in the order in which the reference adds missing ones.
func specialAttributes() []string {
	return []string{"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"}
}

// parseConfig reads the three files; one that is nil is missing. The latter two count only if tokenizer_config.json
// has no list of added tokens: they are how older versions wrote it.
func parseConfig(config, special, added []byte) (*hfConfig, error) {
	c := &hfConfig{present: config != nil, legacy: true, extraIDs: defaultExtraIDs,
		tokens: map[string]addedTokenJSON{}, plain: map[string]bool{}}
	if config != nil {
		if err := c.readConfig(config); err != nil {
			return nil, fmt.Errorf("%s: %w", fileConfig, err)
		}
	}
	if c.listsAdded {
		return c, nil
	}
	if special != nil {
		if err := c.readSpecial(special, true); err != nil {
			return nil, fmt.Errorf("%s: %w", fileSpecial, err)
		}
	}
	if added != nil {
		if err := c.readAdded(added); err != nil {
			return nil, fmt.Errorf("%s: %w", fileAdded, err)
		}
	}
	return c, nil
}

func (c *hfConfig) readConfig(data []byte) error {
	var file configJSON
	if err := json.Unmarshal(data, &file); err != nil {
		return err
	}
	c.class = strings.TrimSuffix(file.Class, "Fast")
	c.cleanUp, c.addPrefix = file.CleanUp, file.AddPrefix
	c.lowerCase, c.stripAccents, c.chineseChars = file.LowerCase, file.StripAccents, file.ChineseChars
	c.addBOS, c.legacy = isTrue(file.AddBOS, false), isTrue(file.Legacy, true)
	if file.ExtraIDs != nil {
		c.extraIDs = *file.ExtraIDs
	}
	if c.extraIDs < 0 || c.extraIDs > maxExtraIDs {
		return fmt.Errorf("extra_ids is %d; it must be from 0 to %d", c.extraIDs, maxExtraIDs)
	}
	if err := c.readSpecial(data, false); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(file.Extra)) {
		token, _, err := parseToken(file.Extra[name], false)
		if err != nil {
			return fmt.Errorf("extra_special_tokens: %s: %w", name, err)
		}
		c.extra = append(c.extra, token)
	}
	c.listsAdded = file.Added != nil
	for text, token := range file.Added {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			return fmt.Errorf("added_tokens_decoder: %q is not an id", text)
		}
		declared := int32(id)
		token.ID = &declared
		c.added = append(c.added, token)
	}
	c.sortAdded()
	return nil
}

// maxExtraIDs bounds the number of T5's sentinel tokens.
const maxExtraIDs = 10000

func (c *hfConfig) sortAdded() {
	slices.SortFunc(c.added, func(a, b addedTokenJSON) int { return int(*a.ID) - int(*b.ID) })
}

// readSpecial reads the special tokens of tokenizer_config.json or special_tokens_map.json. In the latter, a token that
// is more than a name is a special one for sure.
func (c *hfConfig) readSpecial(data []byte, isMap bool) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	for _, name := range specialAttributes() {
		raw, ok := fields[name]
		if !ok || string(raw) == "null" {
			continue
		}
		token, plain, err := parseToken(raw, isMap)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.tokens[name], c.plain[name] = token, plain
	}
	raw, ok := fields["additional_special_tokens"]
	if !ok || string(raw) == "null" {
		return nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return fmt.Errorf("additional_special_tokens: %w", err)
	}
	c.listsSpecials = true
	for _, raw := range list {
		token, _, err := parseToken(raw, isMap)
		if err != nil {
			return fmt.Errorf("additional_special_tokens: %w", err)
		}
		if !slices.ContainsFunc(c.extra, func(t addedTokenJSON) bool { return t.Content == token.Content }) {
			c.extra = append(c.extra, token)
		}
	}
	return nil
}

// parseToken reads a token that is given by its name or with its options.
func parseToken(raw json.RawMessage, special bool) (token addedTokenJSON, plain bool, err error) {
	if len(raw) > 0 && raw[0] == '"' {
		err = json.Unmarshal(raw, &token.Content)
		return token, true, err
	}
	if err := json.Unmarshal(raw, &token); err != nil {
		return token, false, err
	}
	if token.Content == "" {
		return token, false, errors.New("the token has no content")
	}
	token.Special = token.Special || special
	return token, false, nil
}

// readAdded reads added_tokens.json: ids by name.
func (c *hfConfig) readAdded(data []byte) error {
	var ids map[string]int32
	if err := json.Unmarshal(data, &ids); err != nil {
		return err
	}
	for content, id := range ids {
		special := slices.ContainsFunc(c.extra, func(t addedTokenJSON) bool { return t.Content == content })
		for _, token := range c.tokens {
			special = special || token.Content == content
		}
		c.added = append(c.added, addedTokenJSON{ID: &id, Content: content, Special: special})
	}
	c.sortAdded()
	return nil
}

// defaultNames are the names of special tokens that a class has when its configuration does not say otherwise.
func (k kind) defaultNames() specialNames {
	switch k {
	case kindBERT:
		return specialNames{unk: "[UNK]", sep: "[SEP]", pad: "[PAD]", cls: "[CLS]", mask: "[MASK]"}
	case kindGPT2:
		return specialNames{bos: endOfText, eos: endOfText, unk: endOfText}
	case kindCLIP:
		return specialNames{bos: startOfText, eos: endOfText, unk: endOfText, pad: endOfText}
	case kindT5:
		return specialNames{eos: "</s>", unk: "<unk>", pad: "<pad>"}
	}
	return specialNames{}
}

const (
	startOfText = "<|startoftext|>"
	endOfText   = "<|endoftext|>"
)

// optNames are OPT's special tokens, which its configuration names.
func optNames() specialNames {
	return specialNames{bos: "</s>", eos: "</s>", unk: "</s>", pad: "<pad>"}
}

// byAttribute gives the names in the order of specialAttributes.
func (n *specialNames) byAttribute() []*string {
	return []*string{&n.bos, &n.eos, &n.unk, &n.sep, &n.pad, &n.cls, &n.mask}
}

// addTokens adds what the configuration knows beyond the vocabulary files, in the reference's order: the tokens that
// had been added when the files were written, then special tokens that the vocabulary does not know yet. named says
// that the configuration names the class, converted that there is no tokenizer.json.
func (p *pipeline) addTokens(c *hfConfig, k kind, named, converted bool) error {
	for _, entry := range c.added {
		token := entry.token()
		if id, ok := p.added.ids[token.content]; !ok || p.added.byID[id] != token {
			token = c.asSpecial(token, p.names)
		}
		if err := p.addDeclared(token, entry.ID); err != nil {
			return err
		}
	}
	names := p.names.byAttribute()
	for i, attribute := range specialAttributes() {
		name := *names[i]
		if name == "" {
			continue
		}
		entry, given := c.tokens[attribute]
		if !given && !named { // a default of a class that was only guessed
			_, exists := p.ID(name)
			if !exists {
				*names[i] = ""
			}
			if !exists || !converted {
				continue
			}
		}
		token := entry.token()
		if !given || c.plain[attribute] {
			// The classes of GPT-2 and CLIP for vocabulary files make more of a name than the others.
			token = addedToken{content: name, normalized: converted && (k == kindGPT2 || k == kindCLIP)}
		}
		if err := p.addSpecial(token); err != nil {
			return err
		}
	}
	for _, entry := range c.extra {
		token := entry.token()
		if entry.Normalized == nil {
			token.normalized = false
		}
		if err := p.addSpecial(token); err != nil {
			return err
		}
	}
	return nil
}

// asSpecial marks an added token as special if it is one of the special tokens.
func (c *hfConfig) asSpecial(token addedToken, names specialNames) addedToken {
	for _, name := range names.byAttribute() {
		token.special = token.special || *name == token.content
	}
	for _, extra := range c.extra {
		token.special = token.special || extra.Content == token.content
	}
	return token
}

// addSpecial adds a special token unless it has been added already.
func (p *pipeline) addSpecial(token addedToken) error {
	if _, ok := p.added.ids[token.content]; ok {
		return nil
	}
	token.special = true
	return p.addDeclared(token, nil)
}

// setNames takes the names of special tokens from the configuration, and for those it does not give the defaults.
func (p *pipeline) setNames(c *hfConfig, defaults specialNames) {
	p.names = defaults
	names := p.names.byAttribute()
	for i, attribute := range specialAttributes() {
		if token, ok := c.tokens[attribute]; ok {
			*names[i] = token.Content
		}
	}
}

// sentinels are the additional special tokens of a T5 tokenizer: the configuration's, and <extra_id_0> and so on if
// there is none of these among them.
func (c *hfConfig) sentinels() []addedTokenJSON {
	list := c.extra
	for _, token := range list {
		if strings.Contains(token.Content, "<extra_id_") {
			return list
		}
	}
	for i := range c.extraIDs {
		list = append(list, addedTokenJSON{Content: fmt.Sprintf("<extra_id_%d>", i)})
	}
	return list
}
