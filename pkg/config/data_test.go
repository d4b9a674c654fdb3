package config

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestDataSourceKeys(t *testing.T) {
	text := `text: {vocab: vocab.txt}
data:
  mix: {by: weights, epoch_rows: 2M}
  answers: all
  train:
    - {annotations: "a/*.parquet", weight: 2, unit: image, max_texts: 2, expect: {images: 3M, within: 15%}}
    - {shards: "s3://bucket/{00..99}.tar", weight: 1.5, name: web}
    - {shards: "web/{00..99}.tar", weight: 1, top_k: 3, index: never, shuffle_buffer: 5000, cache: kept, cache_gb: 20}
    - annotations: v2_annotations.json
      questions: v2_questions.json
      images: coco
      image_name: COCO_train2014_%012d.jpg
      weight: 1
      format: json
      columns: {image: where, caption: alt}
`
	c, _, err := loadText(t, text, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d := c.Data
	if d.Mix != (Mix{By: "weights", EpochRows: 2_000_000}) || d.Answers != "all" || len(d.Train) != 4 {
		t.Fatalf("data %+v", d)
	}
	if s := d.Train[0]; !filepath.IsAbs(s.Annotations) || filepath.Base(s.Annotations) != "*.parquet" || s.Weight != 2 ||
		s.Unit != "image" || s.MaxTexts != 2 || s.Expect != (Expect{Images: 3_000_000, Within: 0.15}) {
		t.Errorf("data.train[0] %+v", s)
	}
	if d.Train[1].Shards != "s3://bucket/{00..99}.tar" || !filepath.IsAbs(d.Train[2].Shards) {
		t.Errorf("shards %q, %q", d.Train[1].Shards, d.Train[2].Shards)
	}
	if s := d.Train[2]; s.TopK != 3 || s.Index != "never" || s.Buffer != 5000 || filepath.Base(s.Cache) != "kept" ||
		!filepath.IsAbs(s.Cache) || s.CacheGB != 20 {
		t.Errorf("data.train[2] %+v", s)
	}
	if s := d.Train[3]; filepath.Base(s.Questions) != "v2_questions.json" || s.Columns.Caption != "alt" ||
		s.Format != "json" {
		t.Errorf("data.train[3] %+v", s)
	}
	again, _, err := loadText(t, string(c.YAML()), LoadOptions{})
	if err != nil || !reflect.DeepEqual(again.Data, d) {
		t.Errorf("written and read again: %v\n%+v\nwant\n%+v", err, again, d)
	}
}

func TestDataRules(t *testing.T) {
	for _, c := range []struct{ set, want string }{
		{"data.train[0].annotations=", "data.train[0].annotations: is required: annotation file of any known format"},
		{"data.train[0].shards=x.tar", "either annotations or shards"},
		{"data.train[0].top_k=2", "top_k is for shards"},
		{"data.train[0].cache=x", "cache is for shards"},
		{"data.train[0].weight=2", "data.mix.by weights alone, not images"},
		{"data.mix.by=weights", "data.train[0].weight: is required: data.mix.by is weights"},
		{"data.train[0].share=0.2", "data.mix.by blip1 alone"},
		{"data.mix={by: rows, epoch_rows: 5}", "data.mix.epoch_rows: with data.mix.by rows"},
		{"data.mix.by=size", "must be one of images, rows, weights, blip1"},
		{"data.answers=best", "must be one of weighted, uniform_distinct, all"},
		{"data.train[0].format=xml", "must be one of"},
		{"data.train[0].column=x", "did you mean data.train[0].columns?"},
	} {
		_, _, err := loadText(t, complete, LoadOptions{Set: []string{c.set}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("--set %s: error %v, want %q", c.set, err, c.want)
		}
	}
}

// TestHashOfOldRuns: keys that came later leave the hash of a configuration alone until they are set, so that runs from
// before can go on.
func TestHashOfOldRuns(t *testing.T) {
	hash := func(set ...string) string {
		c, _, err := loadText(t, complete, LoadOptions{Set: set})
		if err != nil {
			t.Fatal(err)
		}
		return c.Hash()
	}
	old := hash()
	if m := Hash(struct {
		A int `yaml:"a"`
		B int `yaml:"b" hash:"new"`
		C Mix `yaml:"c" hash:"new"`
	}{A: 1, C: Mix{By: "images"}}); m != Hash(struct {
		A int `yaml:"a"`
	}{A: 1}) {
		t.Error("new keys change the hash although they are not set")
	}
	if hash("data.mix.by=images", "data.train[0].expect={images: 5}", "data.answers=weighted") != old {
		t.Error("the hash changes with keys that have their default")
	}
	for _, set := range []string{"data.mix.by=rows", "data.train[0].unit=image", "data.train[0].columns={image: x}",
		"data.answers=all", "data.mix.epoch_rows=9"} {
		if hash(set) == old {
			t.Errorf("--set %s leaves the hash as it is", set)
		}
	}
}

// TestPaperMixture: the data sets of the paper and their sizes are those of the specification.
func TestPaperMixture(t *testing.T) {
	c, _, err := LoadStage1(LoadOptions{Path: filepath.Join("..", "..", "configs", "mixture_129m.yaml"), Partial: true})
	if err != nil {
		t.Fatal(err)
	}
	images := Count(0)
	for _, s := range c.Data.Train {
		images += s.Expect.Images
	}
	if len(c.Data.Train) != 6 || images < 128_500_000 || images > 129_500_000 {
		t.Errorf("%d data sets with %d images", len(c.Data.Train), images)
	}
	if _, _, err := LoadStage1(LoadOptions{Path: filepath.Join("..", "..", "configs", "mixture_129m.yaml"), Partial: true,
		Set: []string{"data.mix.by=blip1", "data.train[5].share=0.2"}}); err != nil {
		t.Errorf("as BLIP mixed them: %v", err)
	}
}
